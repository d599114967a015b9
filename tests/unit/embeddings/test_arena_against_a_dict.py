"""Whatever is done by two openings of one arena: as an ordered dict would have it."""

import contextlib
from collections import OrderedDict

from arenas import SLOT_BYTES, small_arena
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.embeddings.arena import Arena
from serving.slots import READY, Slots


class AgainstADict(RuleBasedStateMachine):
    """Two openings of one arena of three slots, against an ordered dict (oldest use first) and a list of pins."""

    keys = st.sampled_from("abcde")
    openings = st.sampled_from([0, 1])

    @initialize()
    def open(self):
        self.stack = contextlib.ExitStack()
        first = self.stack.enter_context(small_arena(slots=3))
        self.arenas = first, Arena(first.region)
        self.stack.callback(self.arenas[1].close)
        self.ready, self.pins, self.reserved, self.names = OrderedDict(), [], [], []

    def teardown(self):
        self.pins, self.reserved = [], []
        if hasattr(self, "stack"):
            self.stack.close()

    def taken(self):
        """Slots that cannot be given away."""
        return {slot.index for slot, _ in self.pins} | {slot.index for slot, _ in self.reserved}

    @rule(which=openings, key=keys)
    def get(self, which, key):
        found = self.arenas[which].get(key)
        assert (found is not None) == (key in self.ready)
        if found is not None:
            slot, said = found
            assert (slot.index, slot.generation) == self.ready[key]
            assert said == key.encode()
            self.ready.move_to_end(key)

    @rule(which=openings, key=keys)
    @precondition(lambda self: self.ready)
    def pin(self, which, key):
        found = self.arenas[which].get(key)
        if found is not None:
            self.ready.move_to_end(key)
            self.pins.append((found[0], key))

    @rule(which=openings, key=keys)
    def claim(self, which, key):
        slot = self.arenas[which].claim(key)
        if key in self.ready or any(key == its for _, its in self.reserved):
            assert slot == "elsewhere"
        elif len(self.taken()) == 3:
            assert slot == "full"
        else:
            assert slot.index not in self.taken()
            place = {index: its for its, (index, _) in self.ready.items()}
            if slot.index in place:
                assert len(set(place) | self.taken()) == 3, "a free slot was passed over"
                movable = [its for its, (index, _) in self.ready.items() if index not in self.taken()]
                assert place[slot.index] == movable[0], "not the least recently used"
                del self.ready[place[slot.index]]
            self.reserved.append((slot, key))
        del slot

    @rule(which=openings, number=st.integers(0, 9))
    @precondition(lambda self: self.reserved)
    def commit(self, which, number):
        slot, key = self.reserved.pop(number % len(self.reserved))
        self.arenas[which].commit(slot, f"h.{key}", key.encode())
        self.ready[key] = slot.index, slot.generation
        self.names.append((slot.index, slot.generation))

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.reserved)
    def give_up(self, number):
        self.reserved.pop(number % len(self.reserved))

    @rule(number=st.integers(0, 9))
    @precondition(lambda self: self.pins)
    def unpin(self, number):
        self.pins.pop(number % len(self.pins))

    @rule(which=openings, number=st.integers(0, 9))
    @precondition(lambda self: self.pins)
    def drop(self, which, number):
        slot, key = self.pins[number % len(self.pins)]
        self.arenas[which].drop(slot)
        if self.ready.get(key) == (slot.index, slot.generation):
            del self.ready[key]

    @invariant()
    def the_table_agrees(self):
        if hasattr(self, "arenas"):
            assert self.arenas[0].used_bytes() == self.arenas[1].used_bytes() == len(self.ready) * SLOT_BYTES

    @invariant()
    def what_is_pinned_or_held_can_be_read(self):
        if hasattr(self, "arenas"):
            reader = Slots(self.arenas[0].region)
            for index, generation in [*self.ready.values(), *((s.index, s.generation) for s, _ in self.pins)]:
                with reader.holding(index, generation, READY):
                    pass
            reader.close()


TestAgainstADict = AgainstADict.TestCase
