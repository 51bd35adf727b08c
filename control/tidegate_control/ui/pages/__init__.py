"""What each page shows: functions of a Visit."""
