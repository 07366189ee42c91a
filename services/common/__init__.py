"""Code that every process of Sluice needs: back-off, metrics, versions of files, guards of HTTP servers."""
