package ipcwire

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// The writers append whole frames, with their length, in the key order and with the
// forms of numbers that the first implementation of this wire used.

// AppendRegisterAck appends the answer to a REGISTER. With updates it says that the
// service may register again on the same connection when its methods change.
func AppendRegisterAck(b []byte, enc Encoding, updates bool) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(1, updates)
	w.key("type").text(TypeRegisterAck)
	if updates {
		w.key("updates").bool(true)
	}
	w.close()
	return Finish(w.b, start)
}

// AppendRefusal appends the short ERROR that refuses a registration.
func AppendRefusal(b []byte, enc Encoding, code, message string) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(2)
	w.key("type").text(TypeError)
	w.key("error").open(2)
	w.key("message").text(message)
	w.key("code").text(code)
	w.close()
	w.close()
	return Finish(w.b, start)
}

// AppendError appends an ERROR about the message with the given id, of the same
// encoding. stack goes before the message in the field of that name.
func AppendError(b []byte, enc Encoding, id Value, code, message, stack string, at int64) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(3, enc == Msgpack || id.Present())
	w.key("type").text(TypeError)
	w.optional("id", id)
	w.key("error").open(3)
	w.key("message").text(message)
	w.key("code").text(code)
	w.key("stack").text(stack + ": " + message)
	w.close()
	w.key("timestamp").number(float64(at))
	w.close()
	return Finish(w.b, start)
}

// Register is what a service says of itself.
type Register struct {
	Name, Version string
	Methods       []string
	// PoolSize is the number of connections of the service, PoolIndex which of them this
	// is. Neither is sent unless PoolSize is over 1.
	PoolIndex, PoolSize int
	// Updates asks whether the gateway takes a later REGISTER on the same connection.
	Updates bool
}

// AppendRegister appends a REGISTER.
func AppendRegister(b []byte, enc Encoding, r Register) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(5, r.Updates)
	w.key("type").text(TypeRegister)
	w.key("serviceName").text(r.Name)
	w.key("methods").texts(r.Methods)
	w.key("version").text(r.Version)
	w.key("metadata")
	if r.PoolSize > 1 {
		w.open(2)
		w.key("poolIndex").number(float64(r.PoolIndex))
		w.key("poolSize").number(float64(r.PoolSize))
	} else {
		w.open(0)
	}
	w.close()
	if r.Updates {
		w.key("updates").bool(true)
	}
	w.close()
	return Finish(w.b, start)
}

// AppendHeartbeat appends a HEARTBEAT.
func AppendHeartbeat(b []byte, enc Encoding, from string, at int64) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(3)
	w.key("type").text(TypeHeartbeat)
	w.key("from").text(from)
	w.key("timestamp").number(float64(at))
	w.close()
	return Finish(w.b, start)
}

// Call is the head of a CALL.
type Call struct{ ID, From, To, Method string }

// AppendCall appends a CALL with parameters that are encoded already.
func AppendCall(b []byte, enc Encoding, c Call, params []byte, ctx Context) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(7)
	w.key("type").text(TypeCall)
	w.key("id").text(c.ID)
	w.key("from").text(c.From)
	w.key("to").text(c.To)
	w.key("method").text(c.Method)
	w.key("params").raw(params)
	w.key("context").open(4)
	w.key("root").text(ctx.Root)
	w.key("chain").texts(ctx.Chain)
	w.key("depth").number(float64(ctx.Depth))
	w.key("deadline").number(float64(ctx.Deadline))
	w.close()
	w.close()
	return Finish(w.b, start)
}

// Reply is the head of a RESPONSE: From is who was called, To who called.
type Reply struct{ ID, From, To string }

// AppendSuccess appends a RESPONSE with data and a context that are encoded already;
// nil stands for none.
func AppendSuccess(b []byte, enc Encoding, r Reply, data, ctx []byte) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(5, enc == Msgpack || data != nil, ctx != nil)
	w.reply(r, StatusSuccess)
	w.optional("data", rawValue(data))
	w.context(ctx)
	w.close()
	return Finish(w.b, start)
}

// AppendFailure appends a RESPONSE that says that the call failed. stack may be empty.
func AppendFailure(b []byte, enc Encoding, r Reply, code, message, stack string, ctx []byte) []byte {
	start := len(b)
	w := begin(b, enc)
	w.open(6, ctx != nil)
	w.reply(r, StatusError)
	w.key("error").open(2, stack != "")
	w.key("message").text(message)
	w.key("code").text(code)
	if stack != "" {
		w.key("stack").text(stack)
	}
	w.close()
	w.context(ctx)
	w.close()
	return Finish(w.b, start)
}

func rawValue(raw []byte) Value {
	if raw == nil {
		return Value{}
	}
	return Value{Kind: Object, Raw: raw}
}

// writer appends one message.
type writer struct {
	b     []byte
	enc   Encoding
	first bool // of an object, where no comma is due
}

func begin(b []byte, enc Encoding) *writer { return &writer{b: Begin(b), enc: enc} }

// open begins an object of n fields and of those that are there.
func (w *writer) open(n int, also ...bool) {
	if w.enc == JSON {
		w.b, w.first = append(w.b, '{'), true
		return
	}
	for _, there := range also {
		if there {
			n++
		}
	}
	w.b = append(w.b, 0xde, byte(n>>8), byte(n))
}

func (w *writer) close() {
	if w.enc == JSON {
		w.b, w.first = append(w.b, '}'), false
	}
}

func (w *writer) key(name string) *writer {
	if w.enc == JSON {
		if !w.first {
			w.b = append(w.b, ',')
		}
		w.first = false
		w.text(name)
		w.b = append(w.b, ':')
		return w
	}
	w.text(name)
	return w
}

func (w *writer) raw(v []byte) { w.b = append(w.b, v...) }

func (w *writer) text(s string) { w.b = AppendText(w.b, w.enc, s) }

func (w *writer) bool(v bool) {
	switch {
	case w.enc == JSON:
		w.b = strconv.AppendBool(w.b, v)
	case v:
		w.b = append(w.b, 0xc3)
	default:
		w.b = append(w.b, 0xc2)
	}
}

func (w *writer) number(n float64) {
	if w.enc == JSON {
		w.b = appendJSONFloat(w.b, n)
		return
	}
	w.b = appendMsgpackNumber(w.b, n)
}

func (w *writer) texts(list []string) {
	if w.enc == Msgpack {
		w.b = appendMsgpackArray(w.b, len(list))
		for _, s := range list {
			w.text(s)
		}
		return
	}
	w.b = append(w.b, '[')
	for i, s := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.text(s)
	}
	w.b = append(w.b, ']')
}

// optional writes a field that may have no value: JSON leaves it out, msgpack says so.
func (w *writer) optional(name string, v Value) {
	switch {
	case v.Present():
		w.key(name).raw(v.Raw)
	case w.enc == Msgpack:
		w.key(name).raw(absentMsgpack())
	}
}

func (w *writer) reply(r Reply, status string) {
	w.key("type").text(TypeResponse)
	w.key("id").text(r.ID)
	w.key("from").text(r.From)
	w.key("to").text(r.To)
	w.key("status").text(status)
}

func (w *writer) context(ctx []byte) {
	if ctx != nil {
		w.key("context").raw(ctx)
	}
}

func absentMsgpack() []byte { return []byte{0xd4, 0x00, 0x00} }

// AppendText appends a string.
func AppendText(b []byte, enc Encoding, s string) []byte {
	if enc == JSON {
		return appendJSONText(b, s)
	}
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = append(b, 0xda, byte(n>>8), byte(n))
	default:
		b = append(b, 0xdb, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, s...)
}

func appendJSONText(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&0x0f])
		}
	}
	return append(b, '"')
}

// appendJSONFloat writes whole numbers without an exponent as far as they are exact,
// and what is no number as null.
func appendJSONFloat(b []byte, n float64) []byte {
	switch abs := math.Abs(n); {
	case math.IsNaN(n) || math.IsInf(n, 0):
		return append(b, "null"...)
	case n == 0:
		return append(b, '0')
	case abs < 1e-6 || abs >= 1e21:
		return strconv.AppendFloat(b, n, 'e', -1, 64)
	}
	return strconv.AppendFloat(b, n, 'f', -1, 64)
}

// appendMsgpackNumber writes a whole number in the shortest form of up to 32 bits, and
// every other as a floating-point number: never as an integer of 64 bits.
func appendMsgpackNumber(b []byte, n float64) []byte {
	if n != math.Trunc(n) || n < math.MinInt32 || n > math.MaxUint32 || n == 0 && math.Signbit(n) {
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(n))
	}
	switch i := int64(n); {
	case i >= 0 && i < 1<<7, i < 0 && i >= -32:
		return append(b, byte(i))
	case i >= 0 && i < 1<<8:
		return append(b, 0xcc, byte(i))
	case i >= 0 && i < 1<<16:
		return append(b, 0xcd, byte(i>>8), byte(i))
	case i >= 0:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(i))
	case i >= math.MinInt8:
		return append(b, 0xd0, byte(i))
	case i >= math.MinInt16:
		return append(b, 0xd1, byte(i>>8), byte(i))
	default:
		return binary.BigEndian.AppendUint32(append(b, 0xd2), uint32(i))
	}
}

func appendMsgpackArray(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, 0x90|byte(n))
	case n < 1<<16:
		return append(b, 0xdc, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
}
