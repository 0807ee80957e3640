package transcode

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"telford.dev/telford/internal/errs"
)

// set is a parsed descriptor set.
type set struct {
	files     *protoregistry.Files
	types     *dynamicpb.Types
	skeletons sync.Map // protoreflect.MessageDescriptor to int
}

func (s *set) message(name string) protoreflect.MessageDescriptor {
	d, err := s.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	m, _ := d.(protoreflect.MessageDescriptor)
	return m
}

// parseSet reads a serialized FileDescriptorSet. The well-known files may be missing.
func parseSet(b []byte) (*set, error) {
	fds := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(b, fds); err != nil {
		return nil, err
	}
	addWellKnown(fds)
	files, err := protodesc.NewFiles(fds)
	if err != nil {
		return nil, err
	}
	return &set{files: files, types: dynamicpb.NewTypes(files)}, nil
}

func addWellKnown(fds *descriptorpb.FileDescriptorSet) {
	have := make(map[string]bool, len(fds.GetFile()))
	for _, f := range fds.GetFile() {
		have[f.GetName()] = true
	}
	wellKnown := []protoreflect.FileDescriptor{
		anypb.File_google_protobuf_any_proto, durationpb.File_google_protobuf_duration_proto,
		emptypb.File_google_protobuf_empty_proto, fieldmaskpb.File_google_protobuf_field_mask_proto,
		structpb.File_google_protobuf_struct_proto, timestamppb.File_google_protobuf_timestamp_proto,
		wrapperspb.File_google_protobuf_wrappers_proto, descriptorpb.File_google_protobuf_descriptor_proto,
	}
	for _, f := range fds.GetFile() {
		for _, dep := range f.GetDependency() {
			for _, w := range wellKnown {
				if w.Path() == dep && !have[dep] {
					have[dep] = true
					fds.File = append(fds.File, protodesc.ToFileDescriptorProto(w))
				}
			}
		}
	}
}

// parsed returns the set of the descriptors, parsed at most once while it is kept.
func (t *Transcoder) parsed(descriptors []byte) (*set, error) {
	if len(descriptors) > t.maxSetBytes {
		return nil, errs.New(errs.ResourceExhausted, "they take %d bytes and at most %d are read", len(descriptors), t.maxSetBytes)
	}
	key := sha256.Sum256(descriptors)
	if s := t.sets.get(key); s != nil {
		return s, nil
	}
	s, err := parseSet(descriptors)
	if err != nil {
		return nil, err
	}
	return t.sets.put(key, s), nil
}

// cache keeps the most recently used sets by the hash of their bytes.
type cache struct {
	max int

	mu    sync.Mutex // guards what follows
	byKey map[[sha256.Size]byte]*list.Element
	order list.List // of *cached, most recent first
}

type cached struct {
	key [sha256.Size]byte
	set *set
}

func (c *cache) get(key [sha256.Size]byte) *set {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).set
}

// put returns what is kept under the key: s, or what somebody else put meanwhile.
func (c *cache) put(key [sha256.Size]byte, s *set) *set {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		return e.Value.(*cached).set
	}
	if c.byKey == nil {
		c.byKey = make(map[[sha256.Size]byte]*list.Element)
	}
	c.byKey[key] = c.order.PushFront(&cached{key, s})
	for len(c.byKey) > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*cached).key)
	}
	return s
}

// Sets is the number of parsed descriptor sets that are kept.
func (t *Transcoder) Sets() int { return t.sets.len() }

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byKey)
}
