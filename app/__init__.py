"""Deskline: self-hosted live support chat."""
