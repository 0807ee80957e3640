// Package sdktest holds the behaviour tests of the SDK against a real runtime: the root
// module never imports the program, so they live here. It has no code of its own and
// owns no goroutines.
package sdktest
