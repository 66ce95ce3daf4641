"""Programmed stimulation: protocols, one site, many sites, monodomain, distinct tachycardias."""
