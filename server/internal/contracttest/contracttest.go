// Package contracttest owns two versions of one protobuf contract, made at run time: both
// have the same names, as two generations of one .proto file have, so that the code
// generated from them could not be linked into one program. It is for tests, and starts no
// goroutines.
package contracttest

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Method is the name of the method that both versions have.
const Method = "side.v1.Payments/Charge"

// The names of the fields. Currency and Fee are of version 2 only.
const (
	Order    = "order"    // of the request
	Currency = "currency" // of the request
	Served   = "served"   // of the response: who answers
	Fee      = "fee"      // of the response
)

// The descriptors; they never change.
var v1, v2 = file(1), file(2)

func file(version int) protoreflect.FileDescriptor {
	field := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name: proto.String(name), JsonName: proto.String(name), Number: proto.Int32(number),
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
	}
	request := &descriptorpb.DescriptorProto{Name: proto.String("ChargeRequest"), Field: []*descriptorpb.FieldDescriptorProto{field(Order, 1)}}
	response := &descriptorpb.DescriptorProto{Name: proto.String("ChargeResponse"), Field: []*descriptorpb.FieldDescriptorProto{field(Served, 1)}}
	if version == 2 {
		request.Field = append(request.Field, field(Currency, 2))
		response.Field = append(response.Field, field(Fee, 2))
	}
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("side/v1/side.proto"), Package: proto.String("side.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{request, response},
	}, nil)
	if err != nil {
		panic(err) // a broken invariant: it is written above
	}
	return f
}

// message is a protobuf message whose type is known once it is used.
type message struct{ m *dynamicpb.Message }

func (m *message) of(version protoreflect.FileDescriptor, name protoreflect.Name) protoreflect.Message {
	if m.m == nil {
		m.m = dynamicpb.NewMessage(version.Messages().ByName(name))
	}
	return m.m
}

// RequestV1 is the request of version 1. The zero value of this and of the other messages
// is empty and ready.
type RequestV1 struct{ message }

// ResponseV1 is the answer of version 1.
type ResponseV1 struct{ message }

// RequestV2 is the request of version 2.
type RequestV2 struct{ message }

// ResponseV2 is the answer of version 2.
type ResponseV2 struct{ message }

// ProtoReflect implements proto.Message.
func (m *RequestV1) ProtoReflect() protoreflect.Message { return m.of(v1, "ChargeRequest") }

// ProtoReflect implements proto.Message.
func (m *ResponseV1) ProtoReflect() protoreflect.Message { return m.of(v1, "ChargeResponse") }

// ProtoReflect implements proto.Message.
func (m *RequestV2) ProtoReflect() protoreflect.Message { return m.of(v2, "ChargeRequest") }

// ProtoReflect implements proto.Message.
func (m *ResponseV2) ProtoReflect() protoreflect.Message { return m.of(v2, "ChargeResponse") }

// Set sets a field of m, which has it, and returns m.
func Set[M proto.Message](m M, field protoreflect.Name, value string) M {
	r := m.ProtoReflect()
	r.Set(r.Descriptor().Fields().ByName(field), protoreflect.ValueOfString(value))
	return m
}

// Get returns a field of m, which has it.
func Get(m proto.Message, field protoreflect.Name) string {
	r := m.ProtoReflect()
	return r.Get(r.Descriptor().Fields().ByName(field)).String()
}
