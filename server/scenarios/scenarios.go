// Package scenarios holds tests of whole clusters: the program and services as processes
// of their own, which are killed, stopped, cut off and misled while others call them. It
// has no code outside of its tests, and nobody imports it; each test ends the processes
// and goroutines that it started.
package scenarios
