module telford.dev/telford/tools

go 1.26
