package registry

import (
	"bytes"
	"slices"

	"telford.dev/telford/internal/catalog"
)

// view is an instance as watchers see it, and about how many bytes it takes on a wire.
type view struct {
	inst *catalog.Instance
	size int
}

// viewOf leaves the descriptors out. Where only the flags have changed since before,
// the size is that of before.
func viewOf(i *catalog.Instance, before view, same bool) view {
	v := view{inst: i, size: before.size}
	if len(i.Declaration.Descriptors) > 0 {
		c := *i
		c.Declaration.Descriptors = nil
		v.inst = &c
	}
	if !same || v.size == 0 {
		v.size = sizeOf(&i.Declaration)
	}
	return v
}

func sizeOf(d *catalog.Declaration) int {
	n := 256 + len(d.StatusMessage)
	for i := range d.Methods {
		m := &d.Methods[i]
		n += 24 + len(m.Name) + len(m.Contract) + len(m.InputMessage) + len(m.OutputMessage) +
			len(m.InputSchema) + len(m.OutputSchema) + len(m.Description)
	}
	for k, v := range d.Metadata {
		n += 8 + len(k) + len(v)
	}
	n += 32*len(d.Endpoints) + 64*len(d.Tags) + 32*len(d.Capabilities) + 16*len(d.CompatibleVersions)
	for i := range d.Menu {
		n += 64 + len(d.Menu[i].Label) + len(d.Menu[i].Path) + len(d.Menu[i].Icon)
	}
	for i := range d.Dependencies {
		n += 16 + len(d.Dependencies[i].Target)
		for _, name := range d.Dependencies[i].Names {
			n += 2 + len(name)
		}
	}
	return n
}

// maxCompared bounds the members that share looks at.
const maxCompared = 8

// share makes d use the memory of another member where they say the same: the
// instances of a service mostly do, and descriptors are large.
func (s *service) share(self *entry, d *catalog.Declaration) {
	compared := 0
	for _, e := range s.members {
		if e == self && e.inst == nil {
			continue
		}
		o := &e.inst.Declaration
		descriptors := len(d.Descriptors) > 0 && bytes.Equal(o.Descriptors, d.Descriptors)
		methods := len(d.Methods) > 0 && len(o.Methods) == len(d.Methods) && slices.EqualFunc(o.Methods, d.Methods, sameMethod)
		if descriptors {
			d.Descriptors = o.Descriptors
		}
		if methods {
			d.Methods = o.Methods
		}
		if compared++; (descriptors && methods) || compared == maxCompared {
			return
		}
	}
}

func sameMethod(a, b catalog.Method) bool {
	return slices.Equal(a.ContentTypes, b.ContentTypes) &&
		a.Name == b.Name && a.Kind == b.Kind && a.Contract == b.Contract &&
		a.InputMessage == b.InputMessage && a.OutputMessage == b.OutputMessage &&
		a.InputSchema == b.InputSchema && a.OutputSchema == b.OutputSchema && a.Description == b.Description
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
