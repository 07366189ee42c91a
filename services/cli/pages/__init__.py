"""What commands of the installation print, beyond a table."""
