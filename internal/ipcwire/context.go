package ipcwire

import (
	"fmt"
	"math"
	"time"
)

// MaxDepth is the deepest chain of calls that is let through.
const MaxDepth = 100

// Context is what a call hands on to the calls made on its behalf.
type Context struct {
	// Root is the same for all calls of one chain.
	Root string `json:"root"`
	// Chain names the services that called, the first caller first.
	Chain []string `json:"chain"`
	// Depth is 1 for the first call and one more for each call inside another.
	Depth int `json:"depth"`
	// Deadline is a moment in milliseconds since 1970; zero means none.
	Deadline int64 `json:"deadline"`
}

// NewContext is the context of a first call by self.
func NewContext(self, root string, deadline time.Time) Context {
	return Context{Root: root, Chain: []string{self}, Depth: 1, Deadline: deadline.UnixMilli()}
}

// Extend is the context of a call that self makes on behalf of c. The deadline stays.
func (c Context) Extend(self string) Context {
	chain := make([]string, 0, len(c.Chain)+1)
	c.Chain = append(append(chain, c.Chain...), self)
	c.Depth++
	return c
}

// Validate says what is wrong with c, if anything.
func (c Context) Validate() error {
	switch {
	case c.Root == "":
		return fmt.Errorf("the context has no root")
	case len(c.Chain) == 0:
		return fmt.Errorf("the context of %s has an empty chain", c.Root)
	case c.Depth < 1:
		return fmt.Errorf("the context of %s has depth %d; the least is 1", c.Root, c.Depth)
	case c.Deadline < 0:
		return fmt.Errorf("the context of %s has the deadline %d", c.Root, c.Deadline)
	}
	return nil
}

// Exceeded reports whether now is past the deadline, and not merely at it.
func (c Context) Exceeded(now time.Time) bool {
	return c.Deadline != 0 && now.UnixMilli() > c.Deadline
}

// TooDeep reports whether the call would be refused for its depth.
func (c Context) TooDeep() bool { return c.Depth > MaxDepth }

// Remaining is the time until the deadline, never negative. Without a deadline it is the
// longest duration there is.
func (c Context) Remaining(now time.Time) time.Duration {
	if c.Deadline == 0 {
		return math.MaxInt64
	}
	return max(0, time.UnixMilli(c.Deadline).Sub(now))
}

// Format shows c in one line, for logs.
func (c Context) Format() string {
	text := ""
	for i, name := range c.Chain {
		if i > 0 {
			text += " → "
		}
		text += name
	}
	return fmt.Sprintf("%s [%s] depth %d", c.Root, text, c.Depth)
}

// ReadContext is the context that e carries. What is missing or of the wrong kind is
// zero.
func (e *Envelope) ReadContext() Context {
	c := Context{Root: string(e.RootID.Text), Chain: e.Chain.Strings()}
	if n, ok := e.Depth.Float(); ok && n >= 0 && n <= 1<<31 {
		c.Depth = int(n)
	}
	if n, ok := e.Deadline.Float(); ok && n >= 0 && n < 1<<62 {
		c.Deadline = int64(n)
	}
	return c
}
