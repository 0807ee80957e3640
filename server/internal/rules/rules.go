// Package rules owns what operators lay down while everything runs: who may call what,
// how much, and by which way; and it counts what rules that are not in force would have
// denied. It decides about a call when the router asks, and enforces nothing itself.
// Readers take no lock: they see snapshots that are replaced whole, after the store has
// them. One goroutine, owned by Rules between Start and Stop, writes the counts.
package rules
