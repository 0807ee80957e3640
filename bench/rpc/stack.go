package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"telford.dev/telford/bench/internal/measure"
)

// stack is one way to make a call: who serves it, and who calls.
type stack struct {
	name string
	// about is what stands in the table's legend.
	about string
	// shared is the process between or beside both ends: "", "broker" or "runtime".
	shared string
	stream bool
	// serve answers until ctx ends. It says measure.Ready with the target to dial.
	serve func(ctx context.Context, e env) error
	// dial opens what the callers share.
	dial func(ctx context.Context, e env) (client, error)
}

// env is what the processes of one stack know of each other.
type env struct {
	// Stack is the name of the one that is measured.
	Stack string
	// Dir holds certificates and the runtime's data.
	Dir string
	// Target is what the server said when it was ready; empty for the server itself.
	Target string
	// Shared is what the shared process said when it was ready.
	Shared string
	// Size of the payload in bytes.
	Size int
	// Callers that will call at once.
	Callers int
}

// client makes the calls of one process.
type client struct {
	caller func(i int) (measure.Call, error)
	close  func()
}

// stackList is every stack in the order of measuring: rivals next to each other.
func stackList() []stack {
	return slices.Concat(grpcStacks(), natsStacks(), frameStacks(), telfordStacks())
}

func stacks() map[string]stack {
	all := map[string]stack{}
	for _, s := range stackList() {
		all[s.name] = s
	}
	return all
}

func stackNames() []string {
	var names []string
	for _, s := range stackList() {
		names = append(names, s.name)
	}
	return names
}

// payload is incompressible, as a body that was encoded well is.
func payload(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b) // it never fails
	return b
}

// text is a payload that JSON carries as it is.
func text(size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	b := payload(size)
	for i := range b {
		b[i] = letters[b[i]&63]
	}
	return string(b)
}

func checkSize(got, want int) error {
	if got != want {
		return fmt.Errorf("the answer has %d bytes, want %d", got, want)
	}
	return nil
}
