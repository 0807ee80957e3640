package ipcwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// fields is shown the fields of an object, in their order.
type fields interface {
	field(name []byte, v Value)
}

// Envelope is what routing has to know of a message: where its fields lie. The fields
// that have bodies are checked and not decoded. Of a field that comes twice the last
// holds.
type Envelope struct {
	Encoding Encoding
	Body     []byte
	Root     Kind // what the message is; only an Object has fields

	Type, ID, From, To, Method, Status Value
	Context                            Value
	Params, Data, Error                Value // bodies

	ServiceName, Methods, Version, Metadata, Updates Value // of a REGISTER
	Deadline, Depth                                  Value // of the context
	RootID, Chain                                    Value // of the context
	PoolIndex, PoolSize                              Value // of the metadata
}

// Scan fills e with the message in body, which is one whole message of the given
// encoding or an error. Nothing is copied but strings with escapes.
func (e *Envelope) Scan(body []byte, enc Encoding) error {
	*e = Envelope{Encoding: enc, Body: body}
	switch {
	case len(body) == 0:
		return errors.New("the message is empty")
	case enc == JSON:
		return e.scanJSON(body)
	case enc == Msgpack:
		return e.scanMsgpack(body)
	}
	return fmt.Errorf("byte 0x%02x begins neither a JSON object nor a msgpack map", body[0])
}

func (e *Envelope) scanJSON(body []byte) error {
	s := jsonScanner{b: body}
	s.blank()
	var err error
	if s.peek() == '{' {
		e.Root = Object
		err = s.object(0, e)
	} else {
		e.Root, err = s.value(0)
	}
	if err != nil {
		return err
	}
	if s.blank(); s.at < len(s.b) {
		return s.fail("the end of the message")
	}
	return nil
}

func (e *Envelope) scanMsgpack(body []byte) error {
	s := msgpackScanner{b: body}
	var err error
	if Detect(body) == Msgpack {
		e.Root = Object
		err = s.object(e)
	} else {
		var h head
		h, err = s.value(0)
		e.Root = h.kind
	}
	if err != nil {
		return err
	}
	if s.at < len(s.b) {
		return fmt.Errorf("%d bytes follow the message", len(s.b)-s.at)
	}
	return nil
}

// field implements fields.
func (e *Envelope) field(name []byte, v Value) {
	switch string(name) {
	case "type":
		e.Type = v
	case "id":
		e.ID = v
	case "from":
		e.From = v
	case "to":
		e.To = v
	case "method":
		e.Method = v
	case "status":
		e.Status = v
	case "params":
		e.Params = v
	case "data":
		e.Data = v
	case "error":
		e.Error = v
	case "serviceName":
		e.ServiceName = v
	case "methods":
		e.Methods = v
	case "version":
		e.Version = v
	case "updates":
		e.Updates = v
	case "context":
		e.Context = v
		e.Deadline, e.Depth, e.RootID, e.Chain = Value{}, Value{}, Value{}, Value{}
		each(v, (*contextFields)(e))
	case "metadata":
		e.Metadata = v
		e.PoolIndex, e.PoolSize = Value{}, Value{}
		each(v, (*metadataFields)(e))
	}
}

// each shows the fields of v, which has been checked.
func each(v Value, f fields) {
	if v.Kind != Object {
		return
	}
	if v.enc == JSON {
		s := jsonScanner{b: v.Raw}
		_ = s.object(1, f) // it was good a moment ago
		return
	}
	s := msgpackScanner{b: v.Raw}
	_ = s.object(f) // likewise
}

type contextFields Envelope

func (e *contextFields) field(name []byte, v Value) {
	switch string(name) {
	case "deadline":
		e.Deadline = v
	case "depth":
		e.Depth = v
	case "root":
		e.RootID = v
	case "chain":
		e.Chain = v
	}
}

type metadataFields Envelope

func (e *metadataFields) field(name []byte, v Value) {
	switch string(name) {
	case "poolIndex":
		e.PoolIndex = v
	case "poolSize":
		e.PoolSize = v
	}
}

// Narrow rewrites, inside the body, 64-bit integers in the deadline and the depth as
// floating-point numbers of the same length: receivers take the former for numbers of
// another kind, with which they cannot calculate.
func (e *Envelope) Narrow() {
	for _, v := range [...]Value{e.Deadline, e.Depth} {
		if v.Kind == Number && v.enc == Msgpack && (v.Raw[0] == 0xcf || v.Raw[0] == 0xd3) {
			n, _ := msgpackNumber(v.Raw)
			v.Raw[0] = 0xcb
			binary.BigEndian.PutUint64(v.Raw[1:], math.Float64bits(n))
		}
	}
}

// Strings returns the strings of an array, and leaves out what is none.
func (v Value) Strings() []string {
	if v.Kind != Array {
		return nil
	}
	var out []string
	if v.enc == JSON {
		s := jsonScanner{b: v.Raw, at: 1}
		for s.blank(); s.peek() != ']'; s.blank() {
			if s.peek() == ',' {
				s.at++
				continue
			}
			from := s.at
			kind, err := s.value(1)
			if err != nil {
				return out
			}
			if kind == String {
				out = append(out, string(jsonText(s.b[from:s.at])))
			}
		}
		return out
	}
	s := msgpackScanner{b: v.Raw}
	h, err := s.next()
	for i := 0; err == nil && i < h.items; i++ {
		var item head
		if item, err = s.value(1); err == nil && item.kind == String {
			out = append(out, string(item.body))
		}
	}
	return out
}
