package runtime_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"telford.dev/telford"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/telfordtest"
)

// TestWhatIsTooLargeForOneUpdateComesWhole: a service never sees a part of what it
// asked for, however much that is.
func TestWhatIsTooLargeForOneUpdateComesWhole(t *testing.T) {
	t.Parallel()
	const instances, each = 150, 60 << 10 // three updates
	srv := telfordtest.Start(t)
	reg := srv.Runtime().Registry()
	text := strings.Repeat("m", each)
	for i := range instances {
		owner := registry.Owner{Namespace: "default", Instance: fmt.Sprintf("in-%03d", i), Service: "payments", Door: "link"}
		d := &catalog.Declaration{
			Metadata: map[string]string{"text": text}, Methods: []catalog.Method{{Name: "charge", ContentTypes: []string{"json"}}},
			Endpoints: []catalog.Endpoint{{Kind: "link", Host: "127.0.0.1", Port: 4000 + i}},
		}
		if _, _, err := reg.Register(t.Context(), owner, d); err != nil {
			t.Fatal(err)
		}
		reg.Reach(owner.Namespace, owner.Instance, true)
	}
	orders, err := telford.New("orders", telford.WithServer(srv.Addr()), telford.WithKey(srv.Key(t, "orders")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = orders.Stop(context.Background()) }()
	if err := orders.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := orders.WaitReady(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	if n := len(orders.ServiceMap()["payments"].Instances); n != instances {
		t.Errorf("ready with %d of %d instances", n, instances)
	}
}
