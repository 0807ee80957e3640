package main

import (
	"bytes"
	"testing"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

// TestServiceShowsContractsByVersion: a service in the middle of a roll-out.
func TestServiceShowsContractsByVersion(t *testing.T) {
	t.Parallel()
	in := func(id, version string, contracts ...string) *adminv1.Instance {
		i := &adminv1.Instance{Id: id, Version: version, Status: "OK"}
		for k, c := range contracts {
			i.Methods = append(i.Methods, &adminv1.Method{Name: []string{"charge", "refund"}[k], Kind: "unary", Contract: c, ContentTypes: []string{"json"}})
		}
		return i
	}
	s := &adminv1.Service{Name: "payments", Namespace: "default", Instances: []*adminv1.Instance{
		in("in_a", "1.9.0", "js:old"), in("in_b", "1.10.0", "js:old", "js:refund"), in("in_c", "2.0.0", "js:new", "js:refund"), in("in_d", "", "js:new"),
	}}
	s.Methods = s.GetInstances()[2].GetMethods()
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out}
	if err := a.printService(s); err != nil {
		t.Fatal(err)
	}
	want := `METHOD  KIND   ACCEPTS  VERSION       INSTANCES  CONTRACT
charge  unary  json     2.0.0         2          js:new
charge  unary  json     1.10.0,1.9.0  2          js:old
refund  unary  json     2.0.0,1.10.0  2          js:refund
`
	if _, methods, _ := bytes.Cut(out.Bytes(), []byte("\n\n")); !bytes.Contains(methods, []byte(want)) {
		t.Errorf("got\n%s\nwant\n%s", methods, want)
	}
}
