"""Log intake: what gateways post is read strictly, stored once, and acknowledged when durable; it decides nothing.

POST ─► bodies ─► lines / otlp ─► commit ─► duck | clickhouse ─► ACK
        bounded   strict, by      one commit   rows and accounts
                  identity        for many     in one go
"""
