// Package ipcwire owns the wire of the unix socket: frames with a length before them,
// the two encodings of a message, the scan that finds what routing needs without
// decoding a body, the frames that a gateway writes itself, the rewriting of a message
// from one encoding to the other, and the rules of the call context. It opens no
// sockets and starts no goroutines.
package ipcwire

import "math"

// MaxFrame is the largest body that is taken, in bytes.
const MaxFrame = 64 << 20

// maxNesting is how deep values may lie in each other: more than any peer can decode
// without running out of stack.
const maxNesting = 1000

// Encoding is how the messages of one connection are written.
type Encoding uint8

// The encodings.
const (
	Unknown Encoding = iota
	JSON
	Msgpack
)

// String returns "json", "msgpack" or "unknown".
func (e Encoding) String() string {
	switch e {
	case JSON:
		return "json"
	case Msgpack:
		return "msgpack"
	}
	return "unknown"
}

// Detect tells the encoding by how a body begins: a JSON object, or a msgpack map. A
// body that is neither says nothing.
func Detect(body []byte) Encoding {
	for i, c := range body {
		switch {
		case c == '{':
			return JSON
		case i == 0 && (c >= 0x80 && c <= 0x8f || c == 0xde || c == 0xdf):
			return Msgpack
		case !space(c):
			return Unknown
		}
	}
	return Unknown
}

// The types of messages.
const (
	TypeRegister    = "REGISTER"
	TypeRegisterAck = "REGISTER_ACK"
	TypeHeartbeat   = "HEARTBEAT"
	TypeCall        = "CALL"
	TypeResponse    = "RESPONSE"
	TypeError       = "ERROR"
)

// The states of a response.
const (
	StatusSuccess = "success"
	StatusError   = "error"
)

// Kind is what a value is.
type Kind uint8

// The kinds. Absent is also what a msgpack encoder writes for a field that has no value.
const (
	Absent Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
	Binary
	Time
)

// Value is one value inside a body. It is only good as long as the body is.
type Value struct {
	Kind Kind
	enc  Encoding
	Raw  []byte // the value as it stands in the body
	Text []byte // what a String says, without escapes
}

// Present reports whether there is a value at all. Null is one.
func (v Value) Present() bool { return v.Kind != Absent }

// Is reports whether v is the string s.
func (v Value) Is(s string) bool { return v.Kind == String && string(v.Text) == s }

// Float returns the number v. Integers of 64 bits are taken too.
func (v Value) Float() (float64, bool) {
	if v.Kind != Number {
		return 0, false
	}
	if v.enc == JSON {
		return jsonNumber(v.Raw)
	}
	return msgpackNumber(v.Raw)
}

// Truthy reports whether a test in a script would take v for true.
func (v Value) Truthy() bool {
	switch v.Kind {
	case Absent, Null:
		return false
	case Bool:
		return v.Raw[0] == 't' || v.Raw[0] == 0xc3
	case Number:
		n, ok := v.Float()
		return ok && n != 0 && !math.IsNaN(n)
	case String:
		return len(v.Text) > 0
	}
	return true
}

// Shown is v as a text in an error message, at most 128 bytes of it.
func (v Value) Shown() string {
	const most = 128
	var text string
	switch v.Kind {
	case Absent:
		return "undefined"
	case Null:
		return "null"
	case String:
		text = string(v.Text[:min(len(v.Text), most)])
	case Array:
		return "an array"
	case Object:
		return "[object Object]"
	case Binary, Time:
		return "no text"
	case Bool:
		if v.Truthy() {
			return "true"
		}
		return "false"
	case Number:
		n, _ := v.Float()
		return string(appendJSONFloat(nil, n))
	}
	return text
}
