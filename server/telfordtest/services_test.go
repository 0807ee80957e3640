package telfordtest_test

import (
	"context"
	"testing"

	"telford.dev/telford"
	"telford.dev/telford/server/telfordtest"
)

type order struct {
	ID string `json:"id"`
}

type receipt struct {
	Order string `json:"order"`
	Paid  bool   `json:"paid"`
}

// TestServices shows the whole of it: two services of the user's on a runtime of the
// test's own.
func TestServices(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, opts ...telfordtest.Option) {
		srv := telfordtest.Start(t, opts...)
		payments := service(t, srv, "payments")
		err := telford.Handle(payments, "charge", func(_ context.Context, in *order) (*receipt, error) {
			return &receipt{Order: in.ID, Paid: true}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		orders := service(t, srv, "orders")
		for _, s := range []*telford.Service{payments, orders} {
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := orders.WaitReady(t.Context(), "payments"); err != nil {
			t.Fatal(err)
		}
		got, err := telford.Call[receipt](t.Context(), orders, "payments", "charge", &order{ID: "o1"})
		if err != nil || got.Order != "o1" || !got.Paid {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func service(t *testing.T, srv *telfordtest.Server, name string) *telford.Service {
	t.Helper()
	s, err := telford.New(name, telford.WithServer(srv.Addr()), telford.WithKey(srv.Key(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
	})
	return s
}
