"""`pensieve doctor`: findings about machine, settings, files, server and clients, each with its
fix.
"""
