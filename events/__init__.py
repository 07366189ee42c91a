"""The domain of Sluice: events, rules, actions and signals as frozen values and pure functions."""
