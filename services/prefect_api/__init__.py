"""The one owner of the Prefect client: every call to Prefect's API from the services passes through here."""
