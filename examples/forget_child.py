"""A patch to try: anon_vma_fork() that forgets to count the child."""

from rmaplab.kernel import Kernel


class ForgetChild(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        parent.num_children -= 1
