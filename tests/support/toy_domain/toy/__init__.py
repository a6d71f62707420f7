"""Points in four dimensions, in classes: a domain as a user would add one."""
