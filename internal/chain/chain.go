// Package chain owns the chain of calls: who called whom to get here, how deep that
// may go, and how it is handed on to the calls made on the way. It never sends
// anything and starts no goroutines.
package chain

import (
	"context"
	"strconv"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// Chain is the place of running work in its chain of calls. The zero value is the
// start of one.
type Chain struct {
	// Root is the request id of the first call.
	Root string
	// Names are the methods passed, oldest first, as "service/method". Holders share
	// the slice; nobody changes it.
	Names []string
}

// Depth is the number of calls that led here.
func (c Chain) Depth() int { return len(c.Names) }

// Check returns depth_exceeded, naming the chain, when the call is one too many:
// a chain holds at most message.MaxDepth calls, this one included.
func Check(call *message.Call) error {
	if len(call.Chain) < message.MaxDepth {
		return nil
	}
	return exceeded(call.Service, call.Method, call.ChainRoot, call.Chain)
}

// Enter returns the chain of the work that call begins at service and method: the
// chain that came with it, and the method itself at the end. The root is that of the
// call, or its request id where it is the first. The error is that of Check.
func Enter(call *message.Call, service, method string) (Chain, error) {
	if len(call.Chain) >= message.MaxDepth {
		return Chain{}, exceeded(service, method, call.ChainRoot, call.Chain)
	}
	root := call.ChainRoot
	if root == "" {
		root = call.RequestID
	}
	names := make([]string, len(call.Chain)+1)
	copy(names, call.Chain)
	names[len(call.Chain)] = service + "/" + method
	return Chain{Root: root, Names: names}, nil
}

// Apply gives the chain to a call that is made within it. A call outside of any chain
// becomes the root of its own: its request id must be set. The error is that of Check.
func (c Chain) Apply(call *message.Call) error {
	call.ChainRoot, call.Chain = c.Root, c.Names
	if call.ChainRoot == "" {
		call.ChainRoot = call.RequestID
	}
	return Check(call)
}

type contextKey struct{}

// NewContext returns a context whose calls belong to c.
func NewContext(ctx context.Context, c Chain) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the chain that ctx belongs to; the zero Chain when there is none.
func FromContext(ctx context.Context) Chain {
	c, _ := ctx.Value(contextKey{}).(Chain)
	return c
}

func exceeded(service, method, root string, names []string) error {
	e := errs.New(errs.DepthExceeded,
		"call %s/%s would be number %d of its chain and a chain holds at most %d: %s; look for services that call each other without an end",
		service, method, len(names)+1, message.MaxDepth, describe(names)).Unstarted()
	e.Component = "chain"
	return e.With("root", root).With("depth", strconv.Itoa(len(names)))
}

// shown is how many names of each end of a long chain a message spells out.
const shown = 4

// describe writes a chain for people: the loop that its end runs in, if there is one,
// else both of its ends.
func describe(names []string) string {
	if loop := cycle(names); loop > 0 {
		tail := names[len(names)-loop:]
		return "it goes in a circle: " + strings.Join(tail, " > ") + " > " + tail[0] + " > ..."
	}
	if len(names) <= 2*shown {
		return strings.Join(names, " > ")
	}
	return strings.Join(names[:shown], " > ") + " > ... > " + strings.Join(names[len(names)-shown:], " > ")
}

// cycle returns the length of the shortest loop that the end of the chain has run
// through at least three times, 0 for none.
func cycle(names []string) int {
	const rounds = 3
	for n := 1; n*rounds <= len(names); n++ {
		loop := true
		for i := len(names) - 1; loop && i >= len(names)-n*(rounds-1); i-- {
			loop = names[i] == names[i-n]
		}
		if loop {
			return n
		}
	}
	return 0
}
