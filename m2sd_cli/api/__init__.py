"""The functions behind the commands, one module each; `import m2sd_cli` offers them by name."""
