"""Steps of the start of `sluice up`: what is started is planned, and the deployments are registered."""
