class HopLimit: pass
class OrigDstAddr6: pass
class PktInfo6: pass
class RecvErr6: pass
class TClass: pass
