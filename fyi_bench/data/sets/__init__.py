"""The known data sets: a file here registers its entries by being here."""
