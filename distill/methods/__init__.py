"""One file a method, registered by being here."""
