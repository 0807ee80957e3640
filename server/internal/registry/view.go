package registry

import (
	"bytes"
	"slices"

	"telford.dev/telford/internal/catalog"
)

// view is an instance as watchers see it, and how many bytes it takes on a wire at
// most.
type view struct {
	inst *catalog.Instance
	size int
}

// viewOf leaves the descriptors out. size is known where only flags have changed; 0 has
// it computed.
func viewOf(i *catalog.Instance, size int) view {
	v := view{inst: i, size: size}
	if len(i.Declaration.Descriptors) > 0 {
		c := *i
		c.Declaration.Descriptors = nil
		v.inst = &c
	}
	if size == 0 {
		v.size = sizeOf(i)
	}
	return v
}

// field is what a wire adds to a text of usual length: a tag and a length.
const field = 4

func sizeOf(i *catalog.Instance) int {
	d := &i.Declaration
	n := 256 + sum(i.Namespace, i.ID, i.KeyID, i.Door, i.Zone, d.Service, d.Realm, d.Version, d.Locality, d.StatusMessage, d.SDK)
	for j := range d.Methods {
		m := &d.Methods[j]
		n += 32 + sum(m.Name, m.Contract, m.InputMessage, m.OutputMessage, m.InputSchema, m.OutputSchema, m.Description) + sum(m.ContentTypes...) + sum(m.AllowedCallers...)
		for k := range m.Limits {
			n += 40 + sum(m.Limits[k].Key, m.Limits[k].Scope)
		}
	}
	for j := range d.Endpoints {
		n += 16 + sum(d.Endpoints[j].Kind, d.Endpoints[j].Host)
	}
	for k, v := range d.Metadata {
		n += 8 + sum(k, v)
	}
	for j := range d.Menu {
		m := &d.Menu[j]
		n += 24 + sum(m.ID, m.Label, m.Kind, m.Path, m.Icon) + sum(m.Roles...)
	}
	for j := range d.Dependencies {
		p := &d.Dependencies[j]
		n += 8 + sum(p.Kind, p.Target) + sum(p.Names...)
	}
	return n + sum(d.CompatibleVersions...) + sum(d.Tags...) + sum(d.Capabilities...)
}

func sum(texts ...string) int {
	n := field * len(texts)
	for _, s := range texts {
		n += len(s)
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
		methods := len(d.Methods) > 0 && len(e.methods) == len(d.Methods) && slices.EqualFunc(e.methods, d.Methods, sameMethod)
		if descriptors {
			d.Descriptors = o.Descriptors
		}
		if methods {
			d.Methods = e.methods
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
		a.InputSchema == b.InputSchema && a.OutputSchema == b.OutputSchema && a.Description == b.Description &&
		slices.Equal(a.AllowedCallers, b.AllowedCallers) && a.Timeout == b.Timeout && a.NotRetryable == b.NotRetryable &&
		slices.Equal(a.Limits, b.Limits)
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
