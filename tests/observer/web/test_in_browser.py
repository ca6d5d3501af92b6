"""The Observer in a browser: of processes that run, hold, wait, are blocked, and die."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.observer.web import browser
from tests.observer.web.browser import Observed
from tests.observer.web.observed import LONG, ODD

pytestmark = pytest.mark.timeout(60)  # the first one starts a browser and three processes

CROWD = 180  # workers: more than a drawing shows well, more than a page and a branch of the list
PHONE = {"width": 360, "height": 740}
# The browser itself writes this down when a process that nobody knows is asked for.
NOT_FOUND = "Failed to load resource: the server responded with a status of 404 (Not Found)"


@dataclass
class Site:
    """The Observer of two processes."""

    url: str  # with its token
    shop: Observed  # small
    crowd: Observed  # has CROWD workers

    def at(self, place: str = "", node: Observed | None = None) -> str:
        """Return the address of a view of a node: of `shop`, unless another is given."""
        return f"{self.url}#/{(node or self.shop).node}/{place}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Give a browser."""
    with browser.chromium() as it:
        yield it


@pytest.fixture(scope="module")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the Observer with two processes in its run directory."""
    run_dir = tmp_path_factory.mktemp("run")
    run_dir.chmod(0o700)
    with (
        browser.observed(run_dir) as shop,
        browser.observed(run_dir, workers=CROWD) as crowd,
        browser.served(run_dir) as url,
    ):
        yield Site(url, shop, crowd)


@dataclass
class Alone:
    """The Observer of one process, which has what no other test wants to see."""

    url: str  # with its token
    node: Observed

    def at(self, place: str) -> str:
        """Return the address of a view."""
        return f"{self.url}#/{self.node.node}/{place}"


@pytest.fixture(scope="module")
def alone(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """Give the Observer with a single process that has a zombie, odd names and an outage."""
    run_dir = tmp_path_factory.mktemp("alone")
    run_dir.chmod(0o700)
    with browser.observed(run_dir) as node, browser.served(run_dir) as url:
        for lever in ("haunt", "outage", "names"):
            node.pull(lever)
        yield Alone(url, node)


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of; a test that means it takes it out."""
    return []


@pytest.fixture
def page(chromium: Any, complaints: list[str]) -> Iterator[Any]:
    """Give a tab; at the end nothing may stand in its console, and no rule of the CSP be broken."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    context.add_init_script(browser.REPORT_VIOLATIONS)
    context.add_init_script(browser.SOON)
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error.stack)))
    yield tab
    context.close()
    assert complaints == []


@pytest.fixture(autouse=True)
def expect(chromium: Any) -> Any:
    """Give Playwright's own assertion, which waits; its import would need Playwright."""
    from playwright.sync_api import expect

    expect.set_options(timeout=10_000)
    return expect


def treeitem(page: Any, name: str) -> Any:
    """Return the nodes of the tree whose description begins so."""
    return page.get_by_role("treeitem", name=re.compile(f"^{name}\\b"))


def of_db(page: Any, child: str) -> Any:
    """Return a child of the PoolSup of db: its key is its place."""
    return page.locator(f"[data-key='gpool/pools_sup/db/{child}']")


def header(page: Any, name: str) -> Any:
    """Return the header of a column."""
    return page.get_by_role("columnheader", name=name, exact=True)


def column(page: Any, number: int) -> list[str]:
    """Return what stands in a column of the table of processes."""
    cells: list[str] = page.locator(f".processes tbody tr > :nth-child({number})").all_inner_texts()
    return cells


class TestNodes:
    def test_shows_all_processes_of_the_host(self, page: Any, site: Site, expect: Any) -> None:
        """Without a node in the address there is a table of them, and a link to each."""
        page.goto(site.url)
        row = page.get_by_role("row").filter(has_text=site.shop.node)
        expect(row).to_contain_text("free")
        row.get_by_role("link").click()
        expect(page.get_by_role("tree", name="Supervision tree")).to_be_visible()

    def test_goes_straight_to_the_only_one(self, page: Any, alone: Alone, expect: Any) -> None:
        """The table of all is a choice of the picker, and stays when it is loaded again."""
        page.goto(alone.url)
        expect(page).to_have_url(re.compile(f"#/{alone.node.node}/tree$"))
        expect(treeitem(page, "PoolMan").first).to_be_visible()
        page.get_by_label("Node").select_option("all nodes (1)")
        expect(page.get_by_role("heading", name="All nodes", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_role("region", name="Nodes").get_by_role("row")).to_have_count(2)
        expect(page.get_by_role("heading", name="All nodes", exact=True)).to_be_visible()

    def test_sums_up_what_a_database_must_admit(self, page: Any, site: Site, expect: Any) -> None:
        """The caps of pools with one name are added: 3 + 1 here, CROWD + 1 there."""
        page.goto(site.url)
        row = page.get_by_role("region", name="Caps").get_by_role("row").filter(has_text="db")
        expect(row).to_have_text(re.compile(rf"db\s+2 nodes\s+{4 + CROWD + 1}\s*"))

    def test_changes_the_node_and_keeps_the_view(self, page: Any, site: Site, expect: Any) -> None:
        """The picker is on every view."""
        page.goto(site.at("events"))
        page.get_by_label("Node").select_option(site.crowd.node)
        expect(page).to_have_url(re.compile(f"#/{site.crowd.node}/events$"))

    def test_says_that_a_hub_is_blocked_and_where(self, page: Any, site: Site, expect: Any) -> None:
        """A banner names the line; the rest is shown all the same."""
        page.goto(site.at("processes"))
        expect(page.get_by_role("row").nth(3)).to_be_visible()
        site.shop.pull("block")
        try:
            banner = page.get_by_role("region", name=f"Blocked hub of node {site.shop.node}")
            expect(banner).to_contain_text(re.compile(r"hub blocked \d.*in block\s+os\.read"))
            banner.get_by_text("Where: the whole stack").click()
            expect(banner.get_by_role("region")).to_contain_text("in main")
            page.get_by_role("link", name="Tree").click()
            expect(treeitem(page, "PoolMan").first).to_be_visible()
            marked = page.get_by_label("Node").locator("option", has_text="hub blocked")
            expect(marked).to_have_count(1)
        finally:
            site.shop.pull("unblock")
        expect(banner).to_have_count(0)

    def test_says_that_a_process_went_away(
        self, page: Any, site: Site, complaints: list[str], tmp_path: Path, expect: Any
    ) -> None:
        """What was last seen of it stays on the screen."""
        tmp_path.chmod(0o700)
        with browser.served(tmp_path) as url:
            with browser.observed(tmp_path) as short:
                page.goto(f"{url}#/{short.node}/tree")
                expect(treeitem(page, "PoolMan").first).to_be_visible()
            expect(page.get_by_text(f"Node {short.node} went away.")).to_be_visible()
            expect(treeitem(page, "PoolMan").first).to_be_visible()
        complaints[:] = [text for text in complaints if "Failed to load resource" not in text]


class TestTree:
    def test_is_the_picture_of_the_article(self, page: Any, site: Site, expect: Any) -> None:
        """PoolSup has PoolMan and WorkerSup below it, and that the workers."""
        page.goto(site.at("tree"))
        expect(treeitem(page, "Doubler")).to_have_count(3)

        def level(name: str) -> int:
            return int(treeitem(page, name).last.get_attribute("aria-level"))

        top = level("cache, PoolSup")
        assert level("PoolMan") == level("WorkerSup") == top + 1
        assert level("Doubler") == top + 2
        assert page.locator("svg [role=treeitem]").count() == page.get_by_role("treeitem").count()

    def test_stays_collapsed_while_it_changes(self, page: Any, site: Site, expect: Any) -> None:
        """What the viewer has collapsed stays so, however often the tree is asked for."""
        page.goto(site.at("tree"))
        expect(treeitem(page, "Doubler")).to_have_count(3)
        of_db(page, "worker_sup").locator(".toggle").click()
        expect(treeitem(page, "Doubler")).to_have_count(0)
        with page.expect_response(re.compile("v1/tree")), page.expect_response("**/v1/tree"):
            pass
        expect(treeitem(page, "Doubler")).to_have_count(0)
        page.get_by_role("button", name="Expand all").click()
        expect(treeitem(page, "Doubler")).to_have_count(3)

    def test_marks_what_is_searched_for(self, page: Any, site: Site, expect: Any) -> None:
        """What does not match is left out, but for the way to what does."""
        page.goto(site.at("tree?as=list"))
        page.get_by_label("Search the tree").fill("doubl")
        expect(treeitem(page, "PoolMan")).to_have_count(0)
        expect(treeitem(page, "Doubler").first.locator("mark")).to_have_text("Doubl")
        page.get_by_label("Search the tree").fill("nobody")
        expect(page.get_by_text("Nothing in the tree contains “nobody”.")).to_be_visible()

    def test_heals(self, page: Any, site: Site, expect: Any) -> None:
        """PoolMan is killed: it is there again, in its place, with a badge and another Pid."""
        page.goto(site.at("tree"))
        man = of_db(page, "pool_man")
        expect(man).to_have_accessible_name(re.compile(r"^PoolMan, pool_man, worker, waiting, #"))
        before = man.get_attribute("aria-label")
        site.shop.pull("kill")
        expect(man).to_have_accessible_name(re.compile("restarted 1 time, "))
        expect(man.locator(".restarts")).to_have_text("\N{MULTIPLICATION SIGN}1")
        assert man.get_attribute("aria-label")[-8:] != before[-8:]  # the Pid
        expect(man).to_have_class(re.compile("fresh"))
        expect(man).not_to_have_class(re.compile("fresh"))  # the highlight ends

    def test_draws_links_and_monitors_of_the_open_one(
        self, page: Any, site: Site, expect: Any
    ) -> None:
        """The auditor monitors the accountant, and is linked to the supervisor of both."""
        page.goto(site.at("tree"))
        treeitem(page, "auditor").click()
        expect(page.locator(".canvas .tie.monitors")).to_have_count(1)
        expect(page.locator(".canvas .tie.links")).to_have_count(1)

    def test_is_a_list_where_it_is_big(self, page: Any, site: Site, expect: Any) -> None:
        """The viewer may have the drawing nevertheless; branches are shown as far as asked for."""
        page.goto(site.at("tree", site.crowd))
        rows = page.locator(".treelist [role=treeitem]")
        expect(rows.first).to_be_visible()
        page.get_by_role("button", name="Expand all").click()
        page.get_by_role("treeitem", name=re.compile("more children")).click()
        expect(treeitem(page, "Doubler")).to_have_count(CROWD)
        page.get_by_role("link", name="Drawing").click()
        expect(page.locator("svg [role=treeitem]").nth(CROWD)).to_be_attached()

    @pytest.mark.parametrize("shown", ["list", "drawing"])
    def test_is_used_by_keyboard(self, page: Any, site: Site, expect: Any, shown: str) -> None:
        """Arrows walk and collapse, Home and End jump, letters find, Enter opens, Escape closes."""
        page.goto(site.at(f"tree?as={shown}"))
        items = page.get_by_role("treeitem")
        expect(treeitem(page, "Doubler")).to_have_count(3)
        last = items.last.get_attribute("data-key")
        items.first.focus()
        page.keyboard.press("End")
        expect(page.locator(f"[data-key='{last}']")).to_be_focused()
        page.keyboard.press("Home")
        expect(items.first).to_be_focused()
        page.keyboard.press("ArrowLeft")
        expect(treeitem(page, "Doubler")).to_have_count(0)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        expect(items.nth(1)).to_be_focused()
        page.keyboard.type("doubl")
        expect(treeitem(page, "Doubler").first).to_be_focused()
        page.keyboard.press("ArrowLeft")
        expect(page.locator(":focus")).to_have_accessible_name(re.compile("^WorkerSup"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=re.compile("^WorkerSup"))).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator(":focus")).to_have_accessible_name(re.compile("^WorkerSup"))


class TestProcesses:
    def test_sorts_by_any_column(self, page: Any, site: Site, expect: Any) -> None:
        """By name at first; a click on a header sorts, a second one turns it round."""
        page.goto(site.at("processes"))
        expect(header(page, "Name or Initial Func")).to_have_attribute("aria-sort", "ascending")
        page.get_by_role("button", name="Mailbox").click()
        expect(header(page, "Mailbox")).to_have_attribute("aria-sort", "descending")
        expect(page.get_by_role("row").nth(1)).to_contain_text("sleeper")
        page.get_by_role("button", name="Pid").click()
        expect(header(page, "Pid")).to_have_attribute("aria-sort", "ascending")
        expect(page.get_by_role("row").nth(1)).to_contain_text("#PID<1>")
        first = [int(pid[5:-1]) for pid in column(page, 1)]
        assert first == sorted(first)
        page.get_by_role("button", name="Pid").click()
        expect(header(page, "Pid")).to_have_attribute("aria-sort", "descending")

    def test_filters(self, page: Any, site: Site, expect: Any) -> None:
        """The address holds the filter, so a reload keeps it."""
        page.goto(site.at("processes"))
        page.get_by_label("Filter processes").fill("sleep")
        expect(page.get_by_role("row")).to_have_count(2)
        page.reload()
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page.get_by_label("Filter processes")).to_have_value("sleep")
        page.get_by_label("Filter processes").fill("nobody")
        expect(page.get_by_text("No process here contains “nobody”.")).to_be_visible()

    def test_shows_a_page_at_a_time(self, page: Any, site: Site, expect: Any) -> None:
        """Thousands are a hundred and a way to the next hundred."""
        page.goto(site.at("processes?sort=id", site.crowd))
        expect(page.locator(".processes tbody tr")).to_have_count(100)
        before = column(page, 1)
        page.get_by_role("link", name="next page").click()
        expect(page.get_by_text("101\N{EN DASH}")).to_be_visible()
        assert not set(before) & set(column(page, 1))

    def test_shows_who_has_ended_and_of_what(self, page: Any, site: Site, expect: Any) -> None:
        """The latest first, with the reason."""
        site.shop.pull("end")
        site.shop.pull("start")
        page.goto(site.at("processes"))
        page.get_by_role("link", name=re.compile("^Ended")).click()
        row = page.get_by_role("row").filter(has_text="it was time").first
        expect(row).to_contain_text("dead")
        page.get_by_role("link", name=re.compile("^Zombies")).click()
        expect(page.get_by_text("No zombies")).to_be_visible()

    def test_opens_a_window_by_a_click_anywhere_in_the_row(
        self, page: Any, site: Site, expect: Any
    ) -> None:
        """The table stays beside it where there is room."""
        page.goto(site.at("processes?filter=sleeper"))
        page.get_by_role("cell", name="waiting").click()
        expect(page.get_by_role("heading", name=re.compile("^sleeper"))).to_be_focused()
        expect(page.get_by_role("row")).to_have_count(2)


class TestWindow:
    def test_is_left_by_every_name_in_it(self, page: Any, site: Site, expect: Any) -> None:
        """By a link, a monitor, and back the other way; "back" and a reload know it, too."""
        page.goto(site.at("processes"))
        page.get_by_role("link", name="office").click()
        window = page.get_by_role("complementary")
        heading = window.get_by_role("heading", level=2)

        def follow(region: str, name: str) -> None:
            within = window.get_by_role("region", name=region, exact=True)
            within.get_by_role("link", name=re.compile(f"^{name} #PID")).click()
            expect(heading).to_contain_text(name)

        follow("Links", "auditor")
        follow("Monitors", "accountant")
        follow("Monitored by", "auditor")
        page.go_back()
        expect(heading).to_contain_text("accountant")
        page.reload()
        expect(heading).to_contain_text("accountant")

    def test_leads_from_a_pool_to_its_processes(self, page: Any, site: Site, expect: Any) -> None:
        """And from each of these to the pool."""
        page.goto(site.at("pools"))
        card = page.get_by_role("article", name="Pool db")
        card.get_by_role("link", name=re.compile("^PoolMan")).click()
        window = page.get_by_role("complementary")
        expect(window.get_by_role("heading", level=2)).to_contain_text("PoolMan")
        window.get_by_role("link", name="db", exact=True).click()
        expect(page.get_by_role("heading", name="Pool db")).to_be_visible()

    def test_shows_messages_on_demand_as_text(self, page: Any, site: Site, expect: Any) -> None:
        """Only their number is shown unasked, and never as what they pretend to be."""
        page.goto(site.at("processes?filter=sleeper"))
        page.get_by_role("link", name="sleeper").click()
        window = page.get_by_role("complementary")
        expect(window.get_by_text("3 messages")).to_be_visible()
        assert "second" not in window.inner_text()
        window.get_by_role("button", name="Show the first messages").click()
        expect(window.locator(".messages li")).to_have_text([re.compile(".")] * 3)
        expect(window.get_by_text("<b>second</b>")).to_be_visible()
        assert window.locator("b").count() == 0

    def test_shows_a_state_that_its_owner_shows(self, page: Any, site: Site, expect: Any) -> None:
        """By `format_status`, which leaves out what is secret."""
        page.goto(site.at("processes?filter=accountant"))
        page.get_by_role("link", name="accountant").click()
        window = page.get_by_role("complementary")
        window.get_by_role("button", name="Show the state").click()
        state = window.get_by_role("region", name="State")
        expect(state).to_contain_text("17")
        expect(state).not_to_contain_text("swordfish")

    def test_says_how_to_show_a_state(self, page: Any, site: Site, expect: Any) -> None:
        """Of all others there is a sentence instead of a button."""
        page.goto(site.at("processes?filter=sleeper"))
        page.get_by_role("link", name="sleeper").click()
        window = page.get_by_role("complementary")
        expect(window.get_by_text("format_status")).to_be_visible()
        expect(window.get_by_role("button", name="Show the state")).to_have_count(0)
        expect(window.get_by_role("region", name="Stack")).to_contain_text("sleeper")

    def test_stays_when_its_process_dies(self, page: Any, site: Site, expect: Any) -> None:
        """With *DEAD* in its title, and the reason."""
        page.goto(site.at("processes?filter=mortal"))
        page.get_by_role("link", name="mortal").click()
        heading = page.get_by_role("complementary").get_by_role("heading", level=2)
        expect(heading).to_contain_text("mortal")
        site.shop.pull("end")
        try:
            expect(heading).to_contain_text("*DEAD*")
            expect(page).to_have_title(re.compile(r"\*DEAD\*"))
            expect(page.get_by_role("complementary")).to_contain_text("it was time")
        finally:
            site.shop.pull("start")

    def test_of_a_zombie_offers_nothing(self, page: Any, alone: Alone, expect: Any) -> None:
        """It is dead already, as far as anybody can make it; it is said that it runs on."""
        page.goto(alone.at("processes?which=zombies"))
        page.get_by_role("link", name="ghost").click()
        window = page.get_by_role("complementary")
        expect(window.get_by_role("heading", level=2)).to_contain_text("*ZOMBIE*")
        expect(window).to_contain_text("its greenlet swallowed its exit and runs on")
        expect(window.get_by_text("Lived", exact=True)).to_be_visible()
        expect(window.get_by_role("button", name="Kill")).to_have_count(0)

    def test_of_a_process_that_nobody_knows(
        self, page: Any, site: Site, complaints: list[str], expect: Any
    ) -> None:
        """A link may be older than what its node remembers."""
        page.goto(site.at("processes?pid=99999999"))
        expect(page.get_by_text("knows no process #PID<99999999>")).to_be_visible()
        assert set(complaints) == {NOT_FOUND}
        complaints.clear()


class TestPools:
    def test_shows_a_card_for_each(self, page: Any, site: Site, expect: Any) -> None:
        """What is busy, what is idle, and who waits."""
        page.goto(site.at("pools"))
        card = page.get_by_role("article", name="Pool cache")
        expect(card).to_contain_text("2 busy")
        expect(card).to_contain_text(re.compile(r"Waiting\s+1\s"))

    @pytest.mark.parametrize("place", ["pools", "pools?pool=broken"])
    def test_are_not_ready_in_an_outage(
        self, page: Any, alone: Alone, expect: Any, place: str
    ) -> None:
        """No worker, and none can be started: that is said first, and nothing is green."""
        page.goto(alone.at(place))
        shown = page.get_by_role("main")
        if place == "pools":
            shown = page.get_by_role("article", name="Pool broken")
        expect(shown.locator(".tag").first).to_have_text("starts fail")
        expect(shown.locator(".tag.good")).to_have_count(0)

    def test_shows_who_holds_and_who_waits(self, page: Any, site: Site, expect: Any) -> None:
        """With the line that they checked out at, and the way to their windows."""
        page.goto(site.at("pools"))
        page.get_by_role("link", name="cache", exact=True).click()
        holders = page.get_by_role("region", name="Holders")
        expect(holders.get_by_role("row")).to_have_count(3)
        expect(holders).to_contain_text("web/observed.py:")
        waiting = page.get_by_role("region", name="Waiting")
        expect(waiting).to_contain_text("wait_for_one")
        holders.get_by_role("link", name=re.compile("hold")).first.click()
        expect(page.get_by_role("complementary")).to_contain_text("hold")

    def test_draws_how_it_went(self, page: Any, site: Site, expect: Any) -> None:
        """Four charts, and their latest values in words."""
        page.goto(site.at("pools?pool=cache"))
        charts = page.get_by_role("figure")
        expect(charts).to_have_count(4)
        expect(charts.first.locator("canvas")).to_be_visible()
        expect(charts.first).to_contain_text("busy 2")
        page.emulate_media(color_scheme="dark")
        expect(charts.first.locator("canvas")).to_be_visible()


class TestEvents:
    def test_shows_the_newest_first(self, page: Any, site: Site, expect: Any) -> None:
        """A crash is an error, and leads to who crashed; info can be left out."""
        page.goto(site.at("tree"))
        expect(treeitem(page, "PoolMan").first).to_be_visible()
        site.shop.pull("end")
        site.shop.pull("start")
        expect(page.get_by_role("link", name=re.compile(r"^Events \d+"))).to_be_visible()
        page.get_by_role("link", name=re.compile("^Events")).click()
        page.get_by_role("link", name=re.compile("^Errors")).click()
        crash = page.get_by_role("listitem").filter(has_text="it was time").first
        expect(crash).to_be_visible()
        expect(page.locator(".events li.info")).to_have_count(0)
        crash.get_by_role("link", name=re.compile("PID")).click()
        expect(page.get_by_role("complementary")).to_contain_text("*DEAD*")


class TestActions:
    def test_ask_back_first(self, page: Any, site: Site, expect: Any) -> None:
        """The dialog names the process; Cancel, which has the focus, does nothing."""
        page.goto(site.at("processes?filter=sleeper"))
        page.get_by_role("link", name="sleeper").click()
        page.get_by_role("button", name="Kill").click()
        dialog = page.get_by_role("dialog", name=re.compile(r"^Kill sleeper #PID<\d+>\?"))
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        expect(page.get_by_role("status")).to_be_empty()

    def test_kill_a_process(self, page: Any, site: Site, expect: Any) -> None:
        """The outcome is said, and the window says so."""
        page.goto(site.at("tree?as=list"))
        treeitem(page, "Doubler").first.click()
        page.get_by_role("button", name="Kill").click()
        page.get_by_role("dialog").get_by_role("button", name="Kill").click()
        expect(page.get_by_role("status")).to_contain_text("done")
        window = page.get_by_role("complementary")
        expect(window.get_by_role("heading", level=2)).to_contain_text("*DEAD*")
        expect(treeitem(page, "Doubler")).to_have_count(3)

    def test_resize_a_pool(self, page: Any, site: Site, expect: Any) -> None:
        """The dialog asks for what the action takes."""
        page.goto(site.at("pools?pool=cache"))
        expect(page.get_by_text("of 2", exact=True)).to_be_visible()
        for size in ("3", "2"):
            page.get_by_role("button", name="Resize").click()
            page.get_by_role("dialog").get_by_label("Size").fill(size)
            page.get_by_role("dialog").get_by_role("button", name="Resize").click()
            expect(page.get_by_text(f"of {size}", exact=True)).to_be_visible()

    def test_drain_a_pool_and_open_it_again(self, page: Any, alone: Alone, expect: Any) -> None:
        """Either is offered where it makes sense."""
        page.goto(alone.at("pools?pool=db"))
        drain, opened = (page.get_by_role("button", name=name) for name in ("Drain …", "Open …"))
        drain.click()
        dialog = page.get_by_role("dialog", name="Drain pool db, and let nobody in any more?")
        dialog.get_by_label("Seconds to finish").fill("0")
        dialog.get_by_role("button", name="Drain").click()
        expect(opened).to_be_visible()
        expect(drain).to_have_count(0)
        opened.click()
        page.get_by_role("dialog", name="Open pool db?").get_by_role("button", name="Open").click()
        expect(drain).to_be_visible()
        expect(opened).to_have_count(0)
        expect(page.locator(".tag.good").first).to_have_text("ready")


class TestPolling:
    def test_stops_while_nobody_looks(self, page: Any, site: Site, expect: Any) -> None:
        """A hidden page asks for nothing; shown again it asks at once."""
        page.clock.install()
        page.goto(site.at("processes"))
        page.clock.run_for(1000)
        expect(page.get_by_role("row").nth(1)).to_be_visible()
        hide(page, True)
        page.clock.run_for(10_000)  # what was under way comes to its end
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.clock.run_for(600_000)
        assert asked == []
        with page.expect_request("**/v1/processes*"):
            hide(page, False)

    def test_says_since_when_there_is_no_answer(
        self, page: Any, complaints: list[str], tmp_path: Path, expect: Any
    ) -> None:
        """What was there stays on the screen, and the seconds count."""
        tmp_path.chmod(0o700)
        with browser.observed(tmp_path) as it:
            with browser.served(tmp_path) as url:
                page.goto(f"{url}#/{it.node}/processes")
                expect(page.get_by_text("sleeper").first).to_be_visible()
            expect(page.get_by_text(re.compile(r"No answer since [2-9]\.\d s"))).to_be_visible()
            expect(page.get_by_text("sleeper").first).to_be_visible()
        complaints[:] = [text for text in complaints if "Failed to load resource" not in text]

    def test_pauses_and_remembers_it(self, page: Any, site: Site, expect: Any) -> None:
        """The pace and the pause outlast a reload."""
        page.goto(site.at("events"))
        page.get_by_label("Refresh every").select_option("5 s")
        page.get_by_role("button", name="Pause").click()
        page.reload()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        expect(page.get_by_label("Refresh every")).to_have_value("5")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_text("live", exact=True)).to_be_visible()


def hide(page: Any, hidden: bool) -> None:
    """Hide the tab, as far as the page can tell, or show it."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


class TestEverywhere:
    VIEWS = ("tree", "tree?as=drawing", "processes", "pools", "pools?pool=cache", "events")

    def test_fits_a_phone(self, page: Any, site: Site, expect: Any) -> None:
        """What is too wide scrolls in its own frame, never the page."""
        page.set_viewport_size(PHONE)
        page.goto(site.url)
        expect(page.get_by_role("row").nth(2)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        for view in self.VIEWS:
            page.goto(site.at(view))
            expect(page.locator("main > :not(.bar, h1)").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], view

    def test_fits_a_phone_with_a_long_name(self, page: Any, alone: Alone, expect: Any) -> None:
        """A pool's name is broken where it must be."""
        page.set_viewport_size(PHONE)
        for view in ("pools", f"pools?pool={LONG}"):
            page.goto(alone.at(view))
            expect(page.get_by_role("heading", name=LONG)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], view
        page.get_by_role("button", name="Drain").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.evaluate("(({scrollWidth: a, clientWidth: b}) => a - b)"
                             "(document.querySelector('dialog'))") == 0  # fmt: skip

    def test_shows_what_is_hidden_in_a_name(self, page: Any, alone: Alone, expect: Any) -> None:
        """What would turn the rest of a line round, or act on a screen, is written out."""
        hebrew = ODD[1]
        seen = r"gpj\u202etxt\u001b[2J"
        page.goto(alone.at("processes?filter=txt"))
        page.get_by_role("link", name=seen).click()
        window = page.get_by_role("complementary")
        expect(window.get_by_role("heading", level=2)).to_contain_text(seen)
        expect(page).to_have_title(re.compile(re.escape(seen)))
        window.get_by_role("button", name="Kill").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"Kill {seen} #PID<")
        assert "\u202e" not in page.content()
        page.goto(alone.at(f"processes?filter={hebrew}"))
        expect(page.get_by_role("rowheader").locator("bdi")).to_have_text(hebrew)

    def test_has_the_window_for_itself_on_a_phone(self, page: Any, site: Site, expect: Any) -> None:
        """The view behind it is neither shown nor asked for."""
        page.set_viewport_size(PHONE)
        page.goto(site.at("processes?filter=sleeper"))
        page.get_by_role("link", name="sleeper").click()
        expect(page.get_by_role("heading", name=re.compile("^sleeper"))).to_be_focused()
        expect(page.get_by_role("main")).to_have_count(0)
        page.get_by_role("link", name="Close the window").click()
        expect(page.get_by_role("row")).to_have_count(2)

    def test_has_landmarks_and_names(self, page: Any, site: Site, expect: Any) -> None:
        """A screen reader finds its way: banner, navigation, main, one h1, named controls."""
        for view in self.VIEWS:
            page.goto(site.at(view))
            for role in ("banner", "navigation", "main"):
                expect(page.get_by_role(role).first).to_be_visible()
            expect(page.get_by_role("heading", level=1)).to_have_count(1)
            expect(page.locator("nav [aria-current=page]")).to_have_count(1)
            assert page.get_by_role("button", name=re.compile("^$")).count() == 0, view

    def test_can_be_skipped_into(self, page: Any, site: Site, expect: Any) -> None:
        """The first stop of the Tab key leads past the frame."""
        page.goto(site.at("events"))
        expect(page.get_by_role("main")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the view")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()

    def test_is_dark_in_the_dark(self, page: Any, site: Site, expect: Any) -> None:
        """It follows the system's choice."""
        page.emulate_media(color_scheme="dark")
        page.goto(site.at("tree"))
        expect(treeitem(page, "PoolMan").first).to_be_visible()
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
            "rgb(20, 24, 23)"
        )

    def test_does_not_lose_the_focus(self, page: Any, site: Site, expect: Any) -> None:
        """A row that moves when the table is sorted anew keeps the keyboard's user on it."""
        page.goto(site.at("processes?sort=id"))
        link = page.get_by_role("link", name="sleeper")
        link.focus()
        page.evaluate("location.hash = location.hash.replace('sort=id', 'sort=id&order=desc')")
        expect(header(page, "Pid")).to_have_attribute("aria-sort", "descending")
        with page.expect_response("**/v1/processes*"):
            pass
        expect(link).to_be_focused()
