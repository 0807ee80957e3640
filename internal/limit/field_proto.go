package limit

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// FieldOf returns the field of a message by its name, or by its name in JSON; nil where
// there is none that a key can be taken from: one with one plain value.
func FieldOf(desc protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	fd := desc.Fields().ByName(protoreflect.Name(name))
	if fd == nil {
		fd = desc.Fields().ByJSONName(name)
	}
	if fd == nil || fd.Cardinality() == protoreflect.Repeated || fd.Message() != nil {
		return nil
	}
	return fd
}

// protoText is the text of a value.
func protoText(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return strconv.FormatBool(v.Bool())
	case protoreflect.EnumKind:
		return strconv.FormatInt(int64(v.Enum()), 10)
	case protoreflect.StringKind:
		return v.String()
	case protoreflect.BytesKind:
		return string(v.Bytes())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return floatText(v.Float())
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return strconv.FormatUint(v.Uint(), 10)
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return "" // FieldOf returns none of these
	}
	return strconv.FormatInt(v.Int(), 10)
}

// protoField finds the last value of a field in an encoded message.
func protoField(body []byte, fd protoreflect.FieldDescriptor) string {
	text := protoText(fd, fd.Default())
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return text // the handler refuses such a request
		}
		body = body[n:]
		if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
			return text
		}
		if num == fd.Number() {
			if v, ok := wireValue(fd.Kind(), typ, body); ok {
				text = protoText(fd, v)
			}
		}
		body = body[n:]
	}
	return text
}

// wireValue reads the value of a field; ok is false where the type does not fit.
func wireValue(kind protoreflect.Kind, typ protowire.Type, b []byte) (protoreflect.Value, bool) {
	switch typ {
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(b)
		return varintValue(kind, v)
	case protowire.Fixed32Type:
		v, _ := protowire.ConsumeFixed32(b)
		switch kind {
		case protoreflect.Fixed32Kind:
			return protoreflect.ValueOfUint32(v), true
		case protoreflect.Sfixed32Kind:
			return protoreflect.ValueOfInt32(int32(v)), true
		case protoreflect.FloatKind:
			return protoreflect.ValueOfFloat32(math.Float32frombits(v)), true
		}
	case protowire.Fixed64Type:
		v, _ := protowire.ConsumeFixed64(b)
		switch kind {
		case protoreflect.Fixed64Kind:
			return protoreflect.ValueOfUint64(v), true
		case protoreflect.Sfixed64Kind:
			return protoreflect.ValueOfInt64(int64(v)), true
		case protoreflect.DoubleKind:
			return protoreflect.ValueOfFloat64(math.Float64frombits(v)), true
		}
	case protowire.BytesType:
		v, _ := protowire.ConsumeBytes(b)
		switch kind {
		case protoreflect.StringKind:
			return protoreflect.ValueOfString(string(v)), true
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes(v), true
		}
	}
	return protoreflect.Value{}, false
}

func varintValue(kind protoreflect.Kind, v uint64) (protoreflect.Value, bool) {
	switch kind {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v != 0), true
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(v))), true
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v)), true
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(v)), true
	case protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(int32(protowire.DecodeZigZag(v & math.MaxUint32))), true
	case protoreflect.Sint64Kind:
		return protoreflect.ValueOfInt64(protowire.DecodeZigZag(v)), true
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v)), true
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(v), true
	}
	return protoreflect.Value{}, false
}

// described gives the text of a value in JSON or msgpack the form that the field has in
// protobuf.
func described(fd protoreflect.FieldDescriptor, text string, quoted bool) string {
	if fd == nil {
		return text
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return text
	case protoreflect.BytesKind:
		plain := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
		if b, err := base64.RawStdEncoding.DecodeString(plain); err == nil && quoted {
			return string(b)
		}
		return text
	case protoreflect.EnumKind:
		if v := fd.Enum().Values().ByName(protoreflect.Name(text)); v != nil {
			return strconv.FormatInt(int64(v.Number()), 10)
		}
		return numberText(text)
	case protoreflect.FloatKind:
		if f, err := strconv.ParseFloat(text, 32); err == nil {
			return floatText(f)
		}
		return text
	case protoreflect.BoolKind:
		return text
	}
	return numberText(text)
}

// numberText writes a number the one way in which it is counted.
func numberText(s string) string {
	digits := strings.TrimPrefix(s, "-")
	plain := digits != ""
	for i := range len(digits) {
		plain = plain && digits[i] >= '0' && digits[i] <= '9'
	}
	if plain {
		if digits = strings.TrimLeft(digits, "0"); digits == "" {
			return "0"
		}
		if s[0] == '-' {
			return "-" + digits
		}
		return digits
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	return floatText(f)
}

func floatText(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
