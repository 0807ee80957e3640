package contract

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// message makes a message type out of its fields.
func message(t *testing.T, change func(*descriptorpb.DescriptorProto)) protoreflect.MessageDescriptor {
	t.Helper()
	m := &descriptorpb.DescriptorProto{Name: proto.String("M"), Field: []*descriptorpb.FieldDescriptorProto{
		{Name: proto.String("a"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
		{Name: proto.String("b"), Number: proto.Int32(2), Type: descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()},
		{Name: proto.String("self"), Number: proto.Int32(3), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".p.M"), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
	}}
	if change != nil {
		change(m)
	}
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("p.proto"), Package: proto.String("p"), Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{m},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f.Messages().Get(0)
}

func TestProto(t *testing.T) {
	t.Parallel()
	base := message(t, nil)
	want := Proto(base, base)
	if !strings.HasPrefix(want, "pb:") || len(want) != 3+64 {
		t.Fatalf("got %q", want)
	}
	renamed := message(t, func(m *descriptorpb.DescriptorProto) { m.Field[0].Name = proto.String("other") })
	if Proto(renamed, renamed) != want {
		t.Error("the name of a field counts")
	}
	reordered := message(t, func(m *descriptorpb.DescriptorProto) { m.Field[0], m.Field[1] = m.Field[1], m.Field[0] })
	if Proto(reordered, reordered) != want {
		t.Error("the order of fields counts")
	}
	for name, change := range map[string]func(*descriptorpb.DescriptorProto){
		"number": func(m *descriptorpb.DescriptorProto) { m.Field[0].Number = proto.Int32(9) },
		"type": func(m *descriptorpb.DescriptorProto) {
			m.Field[0].Type = descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum()
		},
		"cardinality": func(m *descriptorpb.DescriptorProto) {
			m.Field[1].Label = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
		},
		"missing": func(m *descriptorpb.DescriptorProto) { m.Field = m.Field[:2] },
		"oneof": func(m *descriptorpb.DescriptorProto) {
			m.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: proto.String("o")}}
			m.Field[0].OneofIndex = proto.Int32(0)
		},
	} {
		other := message(t, change)
		if Proto(other, base) == want || Proto(base, other) == want {
			t.Errorf("%s does not count", name)
		}
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	a := `{"type":"object","title":"T","properties":{"title":{"type":"string","description":"d"}}}`
	b := `{"properties":{"title":{"type":"string"}},"type":"object"}`
	c := `{"properties":{"name":{"type":"string"}},"type":"object"}`
	if Schema(a, a) != Schema(b, b) || !strings.HasPrefix(Schema(a, a), "js:") {
		t.Error("annotations or order count")
	}
	if Schema(a, a) == Schema(c, a) || Schema(a, a) == Schema(a, c) {
		t.Error("the name of a property does not count")
	}
	for _, bad := range []string{"", "{", "nonsense"} {
		if Schema(bad, a) != "" || Schema(a, bad) != "" {
			t.Errorf("%q gives a contract", bad)
		}
	}
}
