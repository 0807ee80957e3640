module telford.dev/telford/examples

go 1.26

require telford.dev/telford v0.0.0

replace telford.dev/telford => ../
