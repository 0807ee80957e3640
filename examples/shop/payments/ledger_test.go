package payments

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// However many instances book an order at once, one receipt comes of it and all get it.
func TestAnOrderIsBookedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const instances, orders = 8, 20
	got := make([][]Receipt, instances)
	var wg sync.WaitGroup
	for i := range instances {
		ledger, err := OpenLedger(dir)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for o := range orders {
				r, err := ledger.Book(Receipt{Order: fmt.Sprintf("A-%d", o), AmountCents: 100, ChargedBy: fmt.Sprint(i)})
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = append(got[i], r)
			}
		})
	}
	wg.Wait()
	for i := range instances {
		if diff := cmp.Diff(got[0], got[i]); diff != "" {
			t.Errorf("instances 0 and %d have other receipts:\n%s", i, diff)
		}
	}
	ledger, err := OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ledger.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != orders {
		t.Errorf("%d receipts for %d orders", len(all), orders)
	}
}

func TestAnOrderIDIsNoPath(t *testing.T) {
	t.Parallel()
	ledger, err := OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a b", "ü"} {
		if _, err := ledger.Book(Receipt{Order: id}); err == nil {
			t.Errorf("order id %q was taken", id)
		}
	}
}

func TestADamagedReceiptIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ledger, err := OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "A-1.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Book(Receipt{Order: "A-1"}); err == nil {
		t.Error("a damaged receipt was taken for a charge")
	}
	if _, err := ledger.All(); err == nil {
		t.Error("a damaged receipt was left out")
	}
}
