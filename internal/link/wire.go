package link

import (
	"encoding/binary"

	"telford.dev/telford/internal/errs"
)

// appendString appends a length and the bytes.
func appendString[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// cursor reads the fields of a block. The first failure sticks; reads after it return
// zero values.
type cursor struct {
	p   []byte
	err error
}

func (c *cursor) fail(what string) {
	if c.err == nil {
		c.err = protocolError("%s does not fit the frame", what)
	}
	c.p = nil
}

func (c *cursor) uvarint(what string) uint64 {
	v, n := binary.Uvarint(c.p)
	if n <= 0 {
		c.fail(what)
		return 0
	}
	c.p = c.p[n:]
	return v
}

func (c *cursor) byte(what string) byte {
	if len(c.p) == 0 {
		c.fail(what)
		return 0
	}
	v := c.p[0]
	c.p = c.p[1:]
	return v
}

func (c *cursor) take(n int, what string) []byte {
	if n < 0 || n > len(c.p) {
		c.fail(what)
		return nil
	}
	v := c.p[:n]
	c.p = c.p[n:]
	return v
}

func (c *cursor) bytes(what string) []byte {
	n := c.uvarint(what)
	if n > uint64(len(c.p)) {
		c.fail(what)
		return nil
	}
	return c.take(int(n), what)
}

func (c *cursor) string(what string) string { return string(c.bytes(what)) }

// count reads the number of items that follow, each at least one byte long.
func (c *cursor) count(what string) int {
	n := c.uvarint(what)
	if n > uint64(len(c.p)) {
		c.fail(what)
		return 0
	}
	return int(n)
}

// name reads a reference to a defined name, or a literal.
func (c *cursor) name(names *nameReader, what string) string {
	id := c.uvarint(what)
	if id == 0 {
		return c.string(what)
	}
	if id > uint64(len(names.names)) {
		if c.err == nil {
			c.err = protocolError("%s refers to name %d, which was not defined", what, id-1)
		}
		c.p = nil
		return ""
	}
	return names.names[id-1]
}

// appendName appends a reference where the other end knows s, else s itself.
func (n *nameWriter) appendName(b []byte, s string) []byte {
	if id, ok := n.ids[s]; ok {
		return binary.AppendUvarint(b, uint64(id)+1)
	}
	b = append(b, 0)
	return appendString(b, s)
}

// appendStatus appends the record of a failure.
func appendStatus(b []byte, e *errs.Error) []byte {
	b = appendString(b, string(e.Code))
	b = binary.AppendUvarint(b, uint64(e.GRPCCode))
	b = appendString(b, e.Message)
	var flags byte
	if e.NotStarted {
		flags |= 1
	}
	if e.Retryable {
		flags |= 2
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(max(0, e.RetryAfter.Microseconds())))
	b = appendString(b, e.Component)
	b = appendString(b, e.Operation)
	b = binary.AppendUvarint(b, uint64(len(e.Details)))
	for _, d := range e.Details {
		b = appendString(b, d)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Meta)))
	for k, v := range e.Meta {
		b = appendString(b, k)
		b = appendString(b, v)
	}
	return b
}
