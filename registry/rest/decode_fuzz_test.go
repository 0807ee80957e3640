package rest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode reads arbitrary bytes as each answer of the API: it never panics, and what
// was read is read the same after it is written.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/response/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(200, text)
		f.Add(404, text)
	}
	f.Add(200, []byte(`{"values":[{"id":"6bc8d050-f86a-11e1-a89e-ca2ffe480b20","timestamp":1,"type":"configuration_value.remove","payload":{"old_value":"a","configuration_value_id":"b"}}]}`))
	f.Add(200, []byte(`{"access":{"token":{"id":"t","expires":"2030-01-01T00:00:00.000-05:00","tenant":{"id":"1"}}}}`))
	f.Add(413, []byte(nil))
	f.Fuzz(func(t *testing.T, status int, text []byte) {
		again(t, status, text, &Service{}, &Service{})
		again(t, status, text, &Page[Service]{}, &Page[Service]{})
		again(t, status, text, &Page[ConfigurationValue]{}, &Page[ConfigurationValue]{})
		again(t, status, text, &Limits{}, &Limits{})
		var events Page[Event]
		if decode(status, text, 1<<20, &events) == nil {
			for _, e := range events.Values {
				_, err1 := e.Service()
				_, err2 := e.Configuration()
				if err1 == nil && err2 == nil {
					t.Errorf("event %+v is about two things", e)
				}
			}
		}
		var a access
		if decode(status, text, 1<<20, &a) == nil {
			if tok, err := a.token(""); err == nil && (tok.id == "" || tok.tenant == "") {
				t.Errorf("a token without id or tenant: %+v", tok)
			}
		}
	})
}

// again decodes, encodes and decodes.
func again(t *testing.T, status int, text []byte, first, second any) {
	t.Helper()
	err := decode(status, text, 1<<20, first)
	var fault *Fault
	switch {
	case errors.As(err, &fault):
		if status >= 200 && status < 400 || fault.Type == "" || fault.Code != status {
			t.Errorf("status %d gave the fault %+v", status, fault)
		}
	case err == nil:
		written, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := decode(200, written, 1<<22, second); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		rewritten, err := json.Marshal(second)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(written), string(rewritten)); diff != "" {
			t.Errorf("not the same again:\n%s", diff)
		}
	}
}
