// Package contract owns the typed hashes by which a caller and a callee find out that
// they mean the same types: "pb:" from protobuf descriptors, where names of fields do
// not count, and "js:" from JSON Schemas, where they do. It starts no goroutines.
package contract

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Proto returns the contract of a method that takes in and answers with out.
func Proto(in, out protoreflect.MessageDescriptor) string {
	h := sha256.New()
	var b []byte
	for _, m := range []protoreflect.MessageDescriptor{in, out} {
		w := walker{seen: make(map[protoreflect.FullName]protoreflect.Descriptor)}
		w.reach(m)
		b = append(b[:0], m.FullName()...)
		b = append(b, '{')
		names := make([]protoreflect.FullName, 0, len(w.seen))
		for n := range w.seen {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			b = append(b, n...)
			switch d := w.seen[n].(type) {
			case protoreflect.MessageDescriptor:
				b = appendMessage(b, d)
			case protoreflect.EnumDescriptor:
				b = appendEnum(b, d)
			}
		}
		b = append(b, '}')
		h.Write(b)
	}
	return "pb:" + hex.EncodeToString(h.Sum(nil))
}

// walker collects every message and enum that a message can hold.
type walker struct {
	seen map[protoreflect.FullName]protoreflect.Descriptor
}

func (w *walker) reach(m protoreflect.MessageDescriptor) {
	if _, ok := w.seen[m.FullName()]; ok {
		return
	}
	w.seen[m.FullName()] = m
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.IsMap() {
			f = f.MapValue()
		}
		if f.Message() != nil {
			w.reach(f.Message())
		}
		if f.Enum() != nil {
			w.seen[f.Enum().FullName()] = f.Enum()
		}
	}
}

func appendMessage(b []byte, m protoreflect.MessageDescriptor) []byte {
	fields := make([]protoreflect.FieldDescriptor, 0, m.Fields().Len())
	for i := range m.Fields().Len() {
		fields = append(fields, m.Fields().Get(i))
	}
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	b = append(b, '(')
	for _, f := range fields {
		b = strconv.AppendInt(b, int64(f.Number()), 10)
		switch {
		case f.IsMap():
			b = append(b, " map "...)
			b = append(b, f.MapKey().Kind().String()...)
			f = f.MapValue()
		case f.IsList():
			b = append(b, " rep"...)
		case f.Cardinality() == protoreflect.Required:
			b = append(b, " req"...)
		default:
			b = append(b, " opt"...)
		}
		b = append(b, ' ')
		b = append(b, f.Kind().String()...)
		if f.Message() != nil {
			b = append(b, ' ')
			b = append(b, f.Message().FullName()...)
		}
		if f.Enum() != nil {
			b = append(b, ' ')
			b = append(b, f.Enum().FullName()...)
		}
		b = append(b, ';')
	}
	for i := range m.Oneofs().Len() {
		o := m.Oneofs().Get(i)
		if o.IsSynthetic() {
			continue
		}
		numbers := make([]int, 0, o.Fields().Len())
		for j := range o.Fields().Len() {
			numbers = append(numbers, int(o.Fields().Get(j).Number()))
		}
		slices.Sort(numbers)
		b = append(b, "oneof"...)
		for _, n := range numbers {
			b = append(b, ' ')
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, ';')
	}
	return append(b, ')')
}

func appendEnum(b []byte, e protoreflect.EnumDescriptor) []byte {
	numbers := make([]int, 0, e.Values().Len())
	for i := range e.Values().Len() {
		numbers = append(numbers, int(e.Values().Get(i).Number()))
	}
	slices.Sort(numbers)
	b = append(b, '[')
	for _, n := range slices.Compact(numbers) {
		b = strconv.AppendInt(b, int64(n), 10)
		b = append(b, ' ')
	}
	return append(b, ']')
}

// Schema returns the contract of a method described by two JSON Schemas; "" when
// either is missing or is no JSON. Titles, descriptions and examples do not count.
func Schema(in, out string) string {
	a, okIn := canonical(in)
	b, okOut := canonical(out)
	if !okIn || !okOut {
		return ""
	}
	h := sha256.New()
	h.Write(a)
	h.Write([]byte{0})
	h.Write(b)
	return "js:" + hex.EncodeToString(h.Sum(nil))
}

func canonical(schema string) ([]byte, bool) {
	var v any
	d := json.NewDecoder(bytes.NewReader([]byte(schema)))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil, false
	}
	b, err := json.Marshal(strip(v, false))
	return b, err == nil
}

// strip drops the annotations of a schema; names is true where keys are the names of
// properties and not keywords.
func strip(v any, names bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			if !names {
				switch k {
				case "title", "description", "examples", "$comment", "$id", "$schema":
					continue
				}
			}
			out[k] = strip(x, !names && (k == "properties" || k == "$defs" || k == "definitions" || k == "patternProperties"))
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = strip(x, false)
		}
		return out
	default:
		return v
	}
}
