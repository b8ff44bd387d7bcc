from wordmask.cli import main

main()
