package orders

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	shopv1 "telford.dev/telford/examples/shop/v1"
)

func TestAnOrderIsWorkedOnOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		release := make(chan struct{})
		runs := 0
		work := func() (*shopv1.Order, error) {
			runs++
			<-release
			return &shopv1.Order{Id: "A-1"}, nil
		}
		got := make(chan *shopv1.Order, 3)
		for range cap(got) {
			go func() {
				o, err := r.once(t.Context(), "A-1", work)
				if err != nil {
					t.Error(err)
				}
				got <- o
			}()
		}
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := r.once(gone, "A-1", work); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that has left got %v", err)
		}
		close(release)
		first := <-got
		for range cap(got) - 1 {
			if o := <-got; o != first {
				t.Error("callers of one order got different ones")
			}
		}
		if runs != 1 {
			t.Errorf("the work was done %d times", runs)
		}
	})
}

func TestFailedWorkMayBeRepeated(t *testing.T) {
	t.Parallel()
	r := newRegister()
	broken := errors.New("broken")
	if _, err := r.once(t.Context(), "A-1", func() (*shopv1.Order, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v, want the failure of the work", err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = r.once(t.Context(), "A-1", func() (*shopv1.Order, error) { panic("bug") })
	}()
	if o := r.get("A-1"); o != nil {
		t.Errorf("an order that failed is known: %v", o)
	}
	o, err := r.once(t.Context(), "A-1", func() (*shopv1.Order, error) { return &shopv1.Order{Id: "A-1"}, nil })
	if err != nil || r.get("A-1") != o || len(r.all()) != 1 {
		t.Errorf("%v, %v, %d orders in all", o, err, len(r.all()))
	}
}
