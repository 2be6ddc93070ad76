"""python -m m2sd_cli"""

from m2sd_cli.cli.app import main

if __name__ == "__main__":
    main()
