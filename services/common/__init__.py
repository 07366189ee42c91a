"""What every process of Sluice needs: waiting out trouble, metrics, versions of files, guards of HTTP servers."""
