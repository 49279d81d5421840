"""How large a dependence is, with intervals that are clustered by patient."""
