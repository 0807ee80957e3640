package catalogpb

import (
	"runtime"
	"sync"
	"weak"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/catalog"
)

// The field numbers of telford.v1.WatchUpdate.
const (
	fieldSnapshot = 1
	fieldRevision = 2
	fieldUpserts  = 3
	fieldRemovals = 4
)

// fieldWatch is the number of watch in telford.v1.ServerMessage.
const fieldWatch = 3

// Encoder marshals the updates of many watchers. An instance is encoded once, however
// many watchers are told of it, and its encoding goes with it. The zero value is ready;
// it is safe for concurrent use and must not be copied.
type Encoder struct {
	encoded sync.Map // weak.Pointer[catalog.Instance] to []byte
}

// AppendUpdate appends u, marshalled as a telford.v1.WatchUpdate.
func (e *Encoder) AppendUpdate(b []byte, u *catalog.Update) ([]byte, error) {
	if u.Snapshot {
		b = protowire.AppendTag(b, fieldSnapshot, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	var err error
	if rev := RevisionToProto(u.Revision); rev != nil {
		if b, err = appendMessage(b, fieldRevision, rev); err != nil {
			return nil, err
		}
	}
	for _, i := range u.Upserts {
		body, err := e.instance(i)
		if err != nil {
			return nil, err
		}
		b = protowire.AppendTag(b, fieldUpserts, protowire.BytesType)
		b = protowire.AppendBytes(b, body)
	}
	for _, t := range u.Removals {
		if b, err = appendMessage(b, fieldRemovals, TombstoneToProto(t)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// ServerMessage returns u, marshalled as a telford.v1.ServerMessage.
func (e *Encoder) ServerMessage(u *catalog.Update) ([]byte, error) {
	body, err := e.AppendUpdate(nil, u)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(body)+8)
	b = protowire.AppendTag(b, fieldWatch, protowire.BytesType)
	return protowire.AppendBytes(b, body), nil
}

// Len returns how many instances have their encoding kept.
func (e *Encoder) Len() int {
	n := 0
	e.encoded.Range(func(any, any) bool { n++; return true })
	return n
}

func (e *Encoder) instance(i *catalog.Instance) ([]byte, error) {
	k := weak.Make(i)
	if b, ok := e.encoded.Load(k); ok {
		return b.([]byte), nil
	}
	b, err := proto.Marshal(InstanceToProto(i))
	if err != nil {
		return nil, err
	}
	if _, loaded := e.encoded.LoadOrStore(k, b); !loaded {
		runtime.AddCleanup(i, func(k weak.Pointer[catalog.Instance]) { e.encoded.Delete(k) }, k)
	}
	return b, nil
}

func appendMessage(b []byte, field protowire.Number, m proto.Message) ([]byte, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, body), nil
}
