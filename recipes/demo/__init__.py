"""The offline demo: a product catalogue (`world`), general abilities (`general`) and a one-million-parameter base."""
