"""What follows an audit: the page that shows it, the decisions about it, and the cleaned data."""
