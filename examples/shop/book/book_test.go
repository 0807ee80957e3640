package book

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheFilesOfTheRepositoryAreGood(t *testing.T) {
	t.Parallel()
	orders, bad, err := ReadOrders("../orders.csv")
	if err != nil || len(bad) > 0 {
		t.Fatalf("orders: %v, %v", bad, err)
	}
	if len(orders) < 300 {
		t.Errorf("%d orders, want a few hundred", len(orders))
	}
	stock, err := ReadStock("../stock.csv")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, a := range stock {
		known[a.SKU] = true
	}
	for _, o := range orders {
		if !known[o.SKU] {
			t.Errorf("order %s is for %s, which is not in stock.csv", o.ID, o.SKU)
		}
	}
}

func TestBadLinesAreNamed(t *testing.T) {
	t.Parallel()
	in := strings.Join([]string{
		"# a comment",
		"A-1, Ann , TEA, 2, 3.5",
		"",
		"A-2,Ben,TEA,two,3.50",
		"A-3,Cem,TEA,2",
		"A-1,Ann,TEA,2,3.50",
		`A-4,"Dee,TEA,2,3.50`,
		"A-5,Eve,TEA,2,-1.00",
		",Fay,TEA,2,1.00",
		"A-6,Gus,TEA,0,1.00",
		"A-7,Hal,TEA,1,1.005",
		`A-8,"Ida, of Rome",TEA,1,7`,
	}, "\n")
	orders, bad, err := ParseOrders(strings.NewReader(in), "in.csv")
	if err != nil {
		t.Fatal(err)
	}
	want := []Order{{"A-1", "Ann", "TEA", 2, 350}, {"A-8", "Ida, of Rome", "TEA", 1, 700}}
	if diff := cmp.Diff(want, orders); diff != "" {
		t.Errorf("orders, -want +got:\n%s", diff)
	}
	var got []string
	for _, b := range bad {
		got = append(got, b.Error())
	}
	if diff := cmp.Diff([]string{
		`in.csv:4: quantity "two" is not a whole number from 1 to 1000`,
		`in.csv:5: 4 fields, want 5, in "A-3,Cem,TEA,2"`,
		`in.csv:6: order A-1 stands on line 2 already`,
		`in.csv:7: column 20: extraneous or missing " in quoted-field`,
		`in.csv:8: price "-1.00" is not an amount such as 12.50, above 0 and at most 1000000`,
		`in.csv:9: the order id is empty`,
		`in.csv:10: quantity "0" is not a whole number from 1 to 1000`,
		`in.csv:11: price "1.005" is not an amount such as 12.50, above 0 and at most 1000000`,
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestALineThatNeverEnds(t *testing.T) {
	t.Parallel()
	_, _, err := ParseOrders(strings.NewReader("A-1,Ann,TEA,2,3.50\n"+strings.Repeat("x", 1<<20)), "in.csv")
	if err == nil || !strings.HasPrefix(err.Error(), "in.csv:2: ") {
		t.Errorf("got %v, want an error of line 2", err)
	}
}

func TestStockIsAllOrNothing(t *testing.T) {
	t.Parallel()
	_, err := ParseStock(strings.NewReader("TEA,Tea,5\nTEA,Tea,6\nCUP,Cup,-1\n"), "stock.csv")
	for _, want := range []string{"stock.csv:2: sku TEA stands there twice", `stock.csv:3: pieces "-1"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func FuzzParseOrders(f *testing.F) {
	f.Add("A-1,Ann,TEA,2,3.50\n# x\n")
	f.Add("A-1,\"Ann\",TEA,2,3.50\nA-1,,,,\n")
	f.Fuzz(func(t *testing.T, in string) {
		orders, bad, err := ParseOrders(strings.NewReader(in), "in")
		seen := map[string]bool{}
		for _, o := range orders {
			if o.ID == "" || o.SKU == "" || seen[o.ID] || o.Quantity < 1 || o.UnitPriceCents < 1 {
				t.Errorf("a bad order came through: %+v", o)
			}
			seen[o.ID] = true
		}
		if n := strings.Count(in, "\n") + 1; err == nil && len(orders)+len(bad) > n {
			t.Errorf("%d orders and %d errors from %d lines", len(orders), len(bad), n)
		}
	})
}
