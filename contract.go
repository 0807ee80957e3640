package telford

import (
	"encoding/json"
	"reflect"

	"github.com/google/jsonschema-go/jsonschema"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"telford.dev/telford/internal/contract"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
)

// contractRule is what a call is to say of the types it means.
type contractRule uint8

const (
	// ownContract says the caller's own: as a demand with protobuf messages, as a wish
	// with structs.
	ownContract contractRule = iota
	exactContract
	anyContract
	givenContract
)

// ExactContract has a call of Go structs go only to instances whose handler has the same
// types, as calls of protobuf messages do anyway. Without it structs that differ are
// matched field by field, as JSON is, when nobody has the same. The error of a call that
// nobody can take is ErrContract. Types without a JSON Schema, such as those that contain
// themselves, and requests that are nil have no contract: the call is refused.
func ExactContract() RPCOption {
	return rpc(func(o *callSettings) { o.contractRule = exactContract })
}

// AnyContract has a call go to the newest version of the method, whatever its types: the
// caller answers for being able to read the answer. It is what a caller of protobuf
// messages takes who knows that the versions are compatible on the wire.
func AnyContract() RPCOption {
	return rpc(func(o *callSettings) { o.contractRule = anyContract })
}

// Contract has a call go only to instances whose method has this contract, as "telford
// services get" shows it, instead of that of the caller's own types.
func Contract(text string) RPCOption {
	return rpc(func(o *callSettings) {
		if err := contract.Check(text); err != nil {
			o.fail("Contract: %s", err.Message)
			return
		}
		if text == "" {
			o.fail("Contract: it is empty; AnyContract is the option of a call that goes to any")
			return
		}
		o.contractRule, o.contract = givenContract, text
	})
}

// typedCall names the route of calls that were made with certain types.
type typedCall struct {
	service, method string
	in, out         reflect.Type // in is nil for an empty request
	rule            contractRule
	ct              message.ContentType
}

// typedRoute returns the route of a call with o.set and o.ContentType. The contract of
// its types is made by the first call and kept.
func (s *Service) typedRoute(v *invoke.Invoker, o *outbound, service, method string, in, out reflect.Type) (*invoke.Route, error) {
	if o.set.contractRule == givenContract {
		return v.Route(service, method, o.ContentType, match.Wish{Contract: o.set.contract}), nil
	}
	key := typedCall{service, method, in, out, o.set.contractRule, o.ContentType}
	if r, ok := s.typed.Load(key); ok {
		return r.(*invoke.Route), nil
	}
	var wish match.Wish
	if key.rule != anyContract {
		text, generated := contractOfTypes(in, out)
		wish = match.Wish{Contract: text, Lenient: !generated && key.rule != exactContract}
		if text == "" {
			wish.Lenient = false
		}
	}
	if key.rule == exactContract && wish.Contract == "" {
		return nil, noContract(service, method, in, out)
	}
	r, _ := s.typed.LoadOrStore(key, v.Route(service, method, o.ContentType, wish))
	return r.(*invoke.Route), nil
}

func noContract(service, method string, in, out reflect.Type) error {
	request := "an empty request"
	if in != nil {
		request = in.String()
	}
	return errs.New(errs.InvalidArgument, "ExactContract: %s and %s have no contract, because a request is needed and a JSON Schema cannot be made of every type; "+
		"give the one that is meant with Contract, or leave the option out", request, out).In("sdk", "call "+service+"/"+method).Unstarted()
}

// contractOfTypes is the contract of a caller that sends in and reads out, as Handle
// computes that of a handler; "" where there is none. generated tells protobuf messages
// from structs.
func contractOfTypes(in, out reflect.Type) (text string, generated bool) {
	if in == nil {
		return "", false
	}
	if in.Kind() == reflect.Pointer {
		in = in.Elem()
	}
	a, b := descriptorOf(in), descriptorOf(out)
	switch {
	case a != nil && b != nil:
		return contract.Proto(a, b), true
	case a != nil || b != nil:
		return "", false
	}
	return contract.Schema(schemaOf(in), schemaOf(out)), false
}

// descriptorOf is the descriptor of a message type, nil for any other, and for messages
// whose type is known only from their values.
func descriptorOf(t reflect.Type) protoreflect.MessageDescriptor {
	m, ok := reflect.New(t).Interface().(proto.Message)
	if !ok {
		return nil
	}
	return m.ProtoReflect().Descriptor()
}

// schemaOf is the JSON Schema of t, "" for types that have none, such as functions and
// types that contain themselves.
func schemaOf(t reflect.Type) string {
	schema, err := jsonschema.ForType(t, nil)
	if err != nil {
		return ""
	}
	b, err := json.Marshal(schema)
	if err != nil {
		return ""
	}
	return string(b)
}
