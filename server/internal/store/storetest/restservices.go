package storetest

import (
	"errors"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/tx"
)

func testRESTServices(t *testing.T, open Open) {
	s := open(t)
	list := func(want ...*restreg.Row) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.RESTServices(t2)
			equal(t, "services", got, want)
			return err
		})
	}
	row := func(namespace, id string) *restreg.Row {
		return &restreg.Row{
			Namespace: namespace, ID: id, Spec: []byte(`{"tags":["☂","\u0000"]}`), KeyID: "key_a", Created: day,
			Deadline: day.Add(30*time.Second + time.Microsecond), Revision: 1, Updated: day, Author: "key_a",
		}
	}
	list()
	upper, dash, low, other := row("default", "Api"), row("default", "a-pi"), row("default", "api"), row("Other", "api")
	for _, r := range []*restreg.Row{low, other, dash, upper} {
		write(t, s, func(t2 tx.Tx) error { return s.PutRESTService(t2, r) })
	}
	list(other, upper, dash, low)
	again := row("default", "api")
	again.Spec, again.KeyID, again.Author, again.Revision = []byte("{}"), "", "runtime", 7
	again.Created, again.Deadline, again.LastSeen, again.Updated = day.Add(1e9), day.Add(2e9), day.Add(3e9), day.Add(4e9)
	for range 2 {
		write(t, s, func(t2 tx.Tx) error { return s.PutRESTService(t2, again) })
		list(other, upper, dash, again)
	}
	for range 2 {
		write(t, s, func(t2 tx.Tx) error {
			return errors.Join(s.DeleteRESTService(t2, "default", "Api"), s.DeleteRESTService(t2, "default", "none"))
		})
		list(other, dash, again)
	}
}

// restModel is the part of the model that means the REST registry.
type restModel struct{ services map[string]restreg.Row }

func newRESTModel() restModel { return restModel{map[string]restreg.Row{}} }

func (m *restModel) clone() restModel { return restModel{maps.Clone(m.services)} }

func (m *restModel) PutRESTService(_ tx.Tx, row *restreg.Row) error {
	c := *row
	c.Spec = append([]byte{}, row.Spec...)
	m.services[row.Namespace+"\x00"+row.ID] = c
	return nil
}

func (m *restModel) DeleteRESTService(_ tx.Tx, namespace, id string) error {
	delete(m.services, namespace+"\x00"+id)
	return nil
}

func (m *restModel) RESTServices(tx.Tx) ([]*restreg.Row, error) { return sorted(m.services), nil }

// restOperations are random uses of what the REST registry keeps.
func restOperations(t *rapid.T) []operation {
	namespace := rapid.SampledFrom([]string{"default", "Default"}).Draw(t, "namespace of a service")
	id := rapid.SampledFrom([]string{"api", "Api", "a-pi"}).Draw(t, "id of a service")
	row := restreg.Row{
		Namespace: namespace, ID: id, Spec: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "spec"), KeyID: "k", Created: day,
		Deadline: day.Add(time.Duration(rapid.IntRange(0, 1e6).Draw(t, "deadline")) * time.Microsecond), Revision: rapid.Int64Range(1, 9).Draw(t, "revision of a service"),
		Updated: day, Author: "k",
	}
	return []operation{
		{"PutRESTService", func(s Store, t tx.Tx) (any, error) { return nil, s.PutRESTService(t, &row) }},
		{"DeleteRESTService", func(s Store, t tx.Tx) (any, error) { return nil, s.DeleteRESTService(t, namespace, id) }},
		{"RESTServices", func(s Store, t tx.Tx) (any, error) { return s.RESTServices(t) }},
	}
}
